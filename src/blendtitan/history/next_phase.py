"""The next phase of a run: changed data, weights or lengths; every corpus keeps its position."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from blendtitan.history.phases import (
    CorpusShards,
    OrderSettings,
    Phase,
    occurrences,
    pasts_at,
    same_proportions,
)
from blendtitan.history.remainder import BegunRows, Past
from blendtitan.order.blend import Segment
from blendtitan.order.slots import SlotOrder


def with_next_phase(
    phases: Sequence[Phase],
    settings: OrderSettings,
    *,
    slot: int,
    seq_len: int,
    segments: tuple[Segment, ...],
    corpora: Mapping[str, CorpusShards],
) -> tuple[Phase, ...]:
    """The phases of a run that continues at ``slot`` with other data, weights or lengths.

    A corpus with the same shards, weighted in the same proportions, continues in its blend of
    shards. Otherwise each row that existed in an earlier phase continues in its epoch, and other
    rows begin with their first window.

    Args:
        phases: The phases so far. The last one is dropped if none of its slots was read.
        settings: Settings of the run.
        slot: Number of samples consumed so far, which is the first slot of the new phase.
        seq_len: Length of windows from now on.
        segments: Segments of the whole run, as planned now.
        corpora: The shards of each corpus now, as at the start of a new run.
    """
    phases = [phase for phase in phases if phase.first_slot < slot]
    stops = [*(phase.first_slot for phase in phases[1:]), slot][: len(phases)]
    known = {name: _KnownCorpus(name) for name in corpora}
    for phase, stop in zip(phases, stops, strict=True):
        at_end = pasts_at(phase, settings, stop)
        for name in known.keys() & phase.corpora.keys():
            draws, pasts = at_end[name]
            known[name].note(phase, draws, pasts, blended=settings.blended)
    continued = {
        name: known[name].continued(corpora[name], seq_len, blended=settings.blended)
        for name in sorted(corpora)
    }
    now = Phase(first_slot=slot, seq_len=seq_len, segments=segments, corpora=continued)
    return (*phases, now)


class _KnownCorpus:
    """The progress of one corpus over the phases noted so far, the latest last."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: tuple[Phase, int] | None = None
        self._rows: dict[_RowKey, tuple[int, Past]] = {}
        """For each row: the place of its first shard, and its progress."""
        self._next_place = 0

    def note(self, phase: Phase, draws: int, pasts: tuple[Past, ...], *, blended: bool) -> None:
        shards = phase.corpora[self._name]
        self._last = (phase, draws)
        self._next_place = max(self._next_place, *(place + 1 for place in shards.places))
        rows = shards.row_slices(blended=blended)
        for key, row, past in zip(_row_keys(shards, blended=blended), rows, pasts, strict=True):
            self._rows[key] = (shards.places[row.start], past)

    def continued(self, now: CorpusShards, seq_len: int, *, blended: bool) -> CorpusShards:
        if self._last is None:
            return now
        phase, draws = self._last
        before = phase.corpora[self._name]
        if phase.seq_len == seq_len and _are_same(before, now, blended=blended):
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
"""Fingerprints of a row's shards, and the number of earlier rows with the same fingerprints."""


def _row_keys(shards: CorpusShards, *, blended: bool) -> list[_RowKey]:
    ids = [shards.ids[row] for row in shards.row_slices(blended=blended)]
    return list(zip(ids, occurrences(ids), strict=True))


def _are_same(before: CorpusShards, now: CorpusShards, *, blended: bool) -> bool:
    """Whether both have the same shards, with the same shares."""
    if before.ids != now.ids:
        return False
    return not blended or same_proportions(before.weights, now.weights)


def account(phases: Sequence[Phase], settings: OrderSettings) -> Iterator[str]:
    """One line for each corpus: how it continues in the last of ``phases``."""
    *before, now = phases
    order = now.order(settings)
    earlier = {name for phase in before for name in phase.corpora}
    for number, name in enumerate(now.corpora):
        rows = [int(row) for row in (order.row_corpora == number).nonzero()[0]]
        if name in earlier:
            yield f"{name}: {_continuation(now.corpora[name], order, rows)}"
        else:
            yield f"{name}: new, {len(rows)} rows begin with their first window"
    for name in sorted(earlier - now.corpora.keys()):
        yield f"{name}: no longer read"


def _continuation(shards: CorpusShards, order: SlotOrder, rows: Sequence[int]) -> str:
    if shards.draws:
        return f"continues after {shards.draws:,} samples of its blend of shards"
    begins = sum(not past for past in shards.pasts)
    text = f"{len(rows) - begins} of {len(rows)} rows continue in their epoch"
    if begins:
        text += f", {begins} begin with their first window"
    begun = order.begun
    if not isinstance(begun, BegunRows):
        return text
    remainders = [begun.remainders[row] for row in rows if row in begun.remainders]
    if remainders:
        windows = int(begun.num_remaining[list(rows)].sum())
        skipped = sum(remainder.num_tokens % order.seq_len for remainder in remainders)
        text += (
            f"; the remainders of {len(remainders)} unfinished epochs are read first, as "
            f"{windows:,} windows of {order.seq_len:,} tokens; {skipped:,} tokens are skipped"
        )
    return text
