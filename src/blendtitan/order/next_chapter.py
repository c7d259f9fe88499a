"""The next chapter of a run: other data, weights or lengths, everything going on where it was."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from blendtitan.order.chapters import Chapter, ChapterOrder, CorpusShards, OrderSettings, twins
from blendtitan.order.segments import Segment, same_proportions
from blendtitan.order.streams import Past, Streams


def with_next_chapter(
    chapters: Sequence[Chapter],
    settings: OrderSettings,
    *,
    slot: int,
    seq_len: int,
    segments: tuple[Segment, ...],
    corpora: Mapping[str, CorpusShards],
) -> tuple[Chapter, ...]:
    """The chapters of a run that goes on at ``slot`` with other data, weights or lengths.

    A corpus whose shards are the same, with weights in the same proportions, goes on in its
    blend of shards. Otherwise each row that is the same, in any earlier chapter, goes on in its
    epoch, and other rows begin with their first window.

    Args:
        chapters: The chapters so far. The last is dropped if none of its slots was read.
        settings: Those of the run.
        slot: Samples consumed so far.
        seq_len: Length of the windows from now on.
        segments: Those of the whole run, as it is planned now.
        corpora: What each corpus holds now, as a run would begin with it.
    """
    chapters = [chapter for chapter in chapters if chapter.first_slot < slot]
    stops = [*(chapter.first_slot for chapter in chapters[1:]), slot][: len(chapters)]
    found = {name: _Found(name) for name in corpora}
    for chapter, stop in zip(chapters, stops, strict=True):
        order = ChapterOrder.build(chapter, settings)
        at_end = order.pasts_at(chapter, stop)
        for name in found.keys() & chapter.corpora.keys():
            draws, pasts = at_end[name]
            found[name].note(chapter, draws, pasts, blended=settings.blended)
    going_on = {
        name: found[name].going_on(corpora[name], seq_len, blended=settings.blended)
        for name in sorted(corpora)
    }
    now = Chapter(first_slot=slot, seq_len=seq_len, segments=segments, corpora=going_on)
    return (*chapters, now)


class _Found:
    """What the chapters tell of one corpus, the latest of them last."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: tuple[Chapter, int] | None = None
        self._rows: dict[_RowKey, tuple[int, Past]] = {}
        """For each row: the place of its first shard, and how far it was read."""
        self._next_place = 0

    def note(self, chapter: Chapter, draws: int, pasts: tuple[Past, ...], *, blended: bool) -> None:
        shards = chapter.corpora[self._name]
        self._last = (chapter, draws)
        self._next_place = max(self._next_place, *(place + 1 for place in shards.places))
        rows = shards.rows(blended=blended)
        for key, row, past in zip(_row_keys(shards, blended=blended), rows, pasts, strict=True):
            self._rows[key] = (shards.places[row.start], past)

    def going_on(self, now: CorpusShards, seq_len: int, *, blended: bool) -> CorpusShards:
        if self._last is None:
            return now
        chapter, draws = self._last
        before = chapter.corpora[self._name]
        if chapter.seq_len == seq_len and _are_same(before, now, blended=blended):
            return replace(before, names=now.names, draws=draws)
        return self._row_by_row(now, blended=blended)

    def _row_by_row(self, now: CorpusShards, *, blended: bool) -> CorpusShards:
        new_places = count(self._next_place)
        places: list[int] = []
        pasts: list[Past] = []
        for key in _row_keys(now, blended=blended):
            known = self._rows.get(key)
            pasts.append(known[1] if known else ())
            if blended:
                places.append(known[0] if known else next(new_places))
        return replace(now, places=tuple(places) or now.places, pasts=tuple(pasts), draws=0)


_RowKey = tuple[tuple[str, ...], int]
"""Ids of a row's shards, and how many rows before it have the same."""


def _row_keys(shards: CorpusShards, *, blended: bool) -> list[_RowKey]:
    ids = [shards.ids[row] for row in shards.rows(blended=blended)]
    return list(zip(ids, twins(ids), strict=True))


def _are_same(before: CorpusShards, now: CorpusShards, *, blended: bool) -> bool:
    """Whether both hold the same shards, blended in the same proportions."""
    if before.ids != now.ids:
        return False
    return not blended or same_proportions(before.weights, now.weights)


def account(chapters: Sequence[Chapter], settings: OrderSettings) -> Iterator[str]:
    """One line for each corpus: how it goes on in the last of ``chapters``."""
    *before, now = chapters
    order = ChapterOrder.build(now, settings)
    earlier = {name for chapter in before for name in chapter.corpora}
    for number, name in enumerate(now.corpora):
        rows = [int(row) for row in (order.row_corpora == number).nonzero()[0]]
        if name in earlier:
            yield f"{name}: {_goes_on(now, now.corpora[name], order.streams, rows)}"
        else:
            yield f"{name}: new, {len(rows)} rows begin with their first window"
    for name in sorted(earlier - now.corpora.keys()):
        yield f"{name}: no longer read"


def _goes_on(now: Chapter, shards: CorpusShards, streams: Streams, rows: Sequence[int]) -> str:
    if shards.draws:
        return f"goes on after {shards.draws:,} samples of its blend of shards"
    begins = sum(not past for past in shards.pasts)
    text = f"{len(rows) - begins} of {len(rows)} rows go on in their epoch"
    if begins:
        text += f", {begins} begin with their first window"
    unread = [streams.unread[row] for row in rows if row in streams.unread]
    if unread:
        windows = int(streams.num_unread[list(rows)].sum())
        skipped = sum(left.num_tokens % now.seq_len for left in unread)
        text += (
            f"; what {len(unread)} begun epochs have left is read first, as {windows:,} windows "
            f"of {now.seq_len:,} tokens, {skipped:,} tokens being skipped"
        )
    return text
