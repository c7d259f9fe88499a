"""Chapters: stretches of the global order in which data and sequence length stay the same.

A run begins with a chapter. When it is resumed with other data, weights or another sequence
length, and is told to go on, the next chapter begins there. A chapter holds everything that its
order depends on, so any of its slots can be explained later, from the state alone.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.blend import BlendTrees
from blendtitan.order.permutation import Bits, mix64, stream_keys
from blendtitan.order.segments import BlendOrder, Segment, segments_from
from blendtitan.order.streams import Past, Places, Streams, read_further

IntArray = NDArray[np.int64]

NO_CORPUS = -1
"""In place of a corpus's number: the row belongs to none of the corpora that are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderSettings:
    """What never changes in the course of a run."""

    seed: int
    split: str
    shuffled: bool
    """Whether the windows of an epoch are permuted."""
    blended: bool
    """Whether each shard of a corpus is a row of its own. Else its shards are one row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusShards:
    """The shards of one corpus that have documents in the split, in reading order."""

    names: tuple[str, ...]
    """File names without suffix."""
    ids: tuple[str, ...]
    """What tells the contents of shards apart: a digest of all that is known of each."""
    tokens: tuple[int, ...]
    """Tokens in the split."""
    weights: tuple[float, ...]
    places: tuple[int, ...]
    """Numbers that choose the order within each shard; none has two meanings in a run."""
    draws: int = 0
    """Draws of the corpus before the chapter since its shards are blended as they are."""
    pasts: tuple[Past, ...]
    """How far each row had been read when its shards began to be blended as they are."""

    def rows(self, *, blended: bool) -> list["slice[int, int, None]"]:
        """Which shards make up each row."""
        number = len(self.names)
        return [slice(i, i + 1) for i in range(number)] if blended else [slice(0, number)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """A stretch of the global order, up to the first slot of the next one."""

    first_slot: int
    seq_len: int
    segments: tuple[Segment, ...]
    """Those of the whole run, as it was planned then: slots count from the run's first."""
    corpora: Mapping[str, CorpusShards]
    """By name, sorted."""

    def blend(self) -> BlendOrder:
        """Which corpus has which slot, counted from the chapter's first."""
        return BlendOrder.build(segments_from(self.segments, self.first_slot), self.corpora)


@dataclass(frozen=True, slots=True)
class SlotPlaces:
    """What some slots are. Arrays have the shape ``(n,)``."""

    corpora: IntArray
    draws: IntArray
    """Draw of the corpus, counted from the chapter's first slot."""
    rows: IntArray
    places: Places
    sample_ids: Bits
    """A number that tells samples apart, whatever other corpora there are."""


@dataclass(frozen=True, slots=True)
class ChapterOrder:
    """From slots of a chapter to windows. Rows are numbered through all corpora."""

    first_slot: int
    blend: BlendOrder
    row_corpora: IntArray
    """Number of each row's corpus, or ``NO_CORPUS``. Shape ``(R,)``."""
    draws_made: IntArray
    """Draws of each corpus in its tree of shards before the chapter. Shape ``(num_corpora,)``."""
    trees: BlendTrees
    """One for each corpus, its leaves being its rows."""
    streams: Streams

    @classmethod
    def build(cls, chapter: Chapter, settings: OrderSettings) -> Self:
        """The order of a chapter."""
        tokens: list[int] = []
        keys: list[int] = []
        pasts: list[Past] = []
        row_weights: list[list[float]] = []
        for name, shards in chapter.corpora.items():
            rows = shards.rows(blended=settings.blended)
            tokens += [sum(shards.tokens[row]) for row in rows]
            places = shards.places if settings.blended else [None]
            keys += stream_keys(settings.seed, settings.split, name, places)
            pasts += shards.pasts
            row_weights.append(list(shards.weights) if settings.blended else [1.0])
        return cls(
            first_slot=chapter.first_slot,
            blend=chapter.blend(),
            row_corpora=np.repeat(np.arange(len(row_weights)), [len(w) for w in row_weights]),
            draws_made=np.array([shards.draws for shards in chapter.corpora.values()], np.int64),
            trees=BlendTrees.build(row_weights),
            streams=Streams.build(
                np.array(tokens, np.int64),
                np.array(keys, np.uint64),
                pasts,
                seq_len=chapter.seq_len,
                shuffled=settings.shuffled,
            ),
        )

    @property
    def num_windows(self) -> int:
        """Windows of one epoch of all corpora together."""
        return int(self.streams.num_windows[self.row_corpora != NO_CORPUS].sum())

    def only(self, corpus: str) -> Self:
        """One corpus alone: slot ``d`` is what here is draw ``d`` of the corpus."""
        number = self.blend.corpora.index(corpus)
        return replace(
            self,
            blend=BlendOrder.build([Segment(0, {corpus: 1.0})]),
            row_corpora=np.where(self.row_corpora == number, 0, NO_CORPUS),
            draws_made=self.draws_made[[number]],
            trees=replace(self.trees, roots=self.trees.roots[[number]]),
        )

    def slot_places(self, slots: IntArray) -> SlotPlaces:
        """What some slots are, none of them before the chapter."""
        corpora, draws = self.blend.draws(slots - self.first_slot)
        rows, row_draws = self.trees.leaves(corpora, draws + self.draws_made[corpora])
        places = self.streams.places(rows, row_draws)
        sample_ids = mix64(places.keys + places.starts.astype(np.uint64))
        return SlotPlaces(corpora, draws, rows, places, sample_ids)

    def stretches(self, row: int, start: int, *, of_unread: bool) -> list[tuple[int, int]]:
        """Where the ``seq_len + 1`` tokens of a window lie in its row: ``(offset, tokens)`` each.

        Args:
            row: Row of the window.
            start: Of the window, as ``Places`` has it.
            of_unread: Whether the window is cut from what its epoch had left.
        """
        seq_len = self.streams.seq_len
        if not of_unread:
            return [(start, seq_len + 1)]
        stretches = self.streams.unread[row].stretches(start, seq_len)
        # The last label is the token that follows in the row.
        return [*stretches[:-1], (stretches[-1][0], stretches[-1][1] + 1)]

    def pasts_at(self, chapter: Chapter, slot: int) -> dict[str, tuple[int, tuple[Past, ...]]]:
        """For each corpus its draws since its tree began, and how far its rows were read.

        Args:
            chapter: The chapter that this order was built from.
            slot: Not before the chapter; where the next one begins.
        """
        draws = self.draws_made + self.blend.draws_before(slot - self.first_slot)
        found: dict[str, tuple[int, tuple[Past, ...]]] = {}
        for number, (name, shards) in enumerate(chapter.corpora.items()):
            own = np.flatnonzero(self.row_corpora == number)
            row_draws = self.trees.draws_before(number, int(draws[number]))[own].tolist()
            pasts = zip(shards.pasts, row_draws, strict=True)
            found[name] = (
                int(draws[number]),
                tuple(read_further(past, chapter.seq_len, count) for past, count in pasts),
            )
        return found


def twins(keys: Iterable[Hashable]) -> list[int]:
    """For each of some keys, how many before it are equal.

    Shards of one name and size, in different folders, are told apart by nothing else.
    """
    seen: Counter[Hashable] = Counter()
    numbers: list[int] = []
    for key in keys:
        numbers.append(seen[key])
        seen[key] += 1
    return numbers


def draws_before(chapters: Sequence[Chapter], slot: int) -> list[dict[str, int]]:
    """How many of the first ``slot`` slots each corpus has, in each chapter."""
    stops = [*(chapter.first_slot for chapter in chapters[1:]), slot]
    found: list[dict[str, int]] = []
    for chapter, stop in zip(chapters, stops, strict=True):
        blend = chapter.blend()
        draws = blend.draws_before(max(0, min(stop, slot) - chapter.first_slot))
        found.append(dict(zip(blend.corpora, draws.tolist(), strict=True)))
    return found


def segments_read(chapters: Sequence[Chapter]) -> list[Segment]:
    """The segments of a whole run, slots counted from its first: what was read, and is to be."""
    stops = [*(chapter.first_slot for chapter in chapters[1:]), None]
    return [
        Segment(segment.first_slot + chapter.first_slot, segment.weights)
        for chapter, stop in zip(chapters, stops, strict=True)
        for segment in segments_from(chapter.segments, chapter.first_slot)
        if stop is None or segment.first_slot + chapter.first_slot < stop
    ]
