"""A dataset within the history of its run: its record in a state, and its continuation.

The next phase has changed data, weights or lengths; every corpus keeps its position.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.history.phases import (
    CorpusShards,
    OrderSettings,
    Phase,
    as_recorded,
    draws_before,
    occurrences,
    pasts_at,
    same_proportions,
    saved_segments,
    segments_read,
)
from blendtitan.history.record import RunRecord, checksums_held, corpora_held, corpus_shards
from blendtitan.history.remainder import BegunRows, Past
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.order.blend import Segment
from blendtitan.order.course import Skips
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
        """The place of each row's first shard, and the row's progress."""
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
            yield f"{name}: new, read from its beginning"
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


IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RunHistory:
    """The phases that a resumed run has read."""

    phases: tuple[Phase, ...]
    """The phases of the run; the last is the current one."""
    held: Mapping[str, Any] | None
    """The facts of each corpus in the checkpoint. None: use the present catalog."""
    skipped: tuple[SkippedStretch, ...] = ()
    """Stretches of slots that the run leaves out, in the order of the configuration."""

    @property
    def skips(self) -> Skips:
        """The slots that the run leaves out."""
        return skips_of(self.skipped)

    @property
    def segments_read(self) -> Sequence[Segment]:
        """Stretches with constant shares, of the whole run as read and as planned."""
        return segments_read(self.phases)

    def samples_before(self, slot: int) -> int:
        """Number of slots before a slot that the run does not skip."""
        return self.skips.kept_before(slot)

    def first_draws(self, corpora: Sequence[str]) -> IntArray:
        """Draw of each corpus at the first slot of the last phase. Skipped slots count."""
        return _summed(draws_before(self.phases, self.phases[-1].first_slot), corpora)

    def draws_before(self, slot: int, corpora: Sequence[str]) -> IntArray:
        """Number of samples of each corpus before a slot. Shape ``(num_corpora,)``."""
        return _summed(draws_before(self.phases, slot, self.skips), corpora)

    def tokens_before(self, slot: int, corpora: Sequence[str]) -> IntArray:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        lengths = [phase.seq_len for phase in self.phases]
        found = [
            {name: draws * seq_len for name, draws in in_phase.items()}
            for in_phase, seq_len in zip(
                draws_before(self.phases, slot, self.skips), lengths, strict=True
            )
        ]
        return _summed(found, corpora)

    def with_segments(
        self, dataset: BlendedDataset, segments: tuple[Segment, ...]
    ) -> BlendedDataset:
        """The dataset with other segments in its last phase."""
        *before, now = self.phases
        segments = as_recorded(segments, now.segments)
        return in_phases(dataset, [*before, replace(now, segments=segments)], self.held)


def skipped_of(dataset: Dataset) -> tuple[SkippedStretch, ...]:
    """The stretches of slots that a dataset's run leaves out."""
    history = dataset.history if isinstance(dataset, BlendedDataset) else None
    return history.skipped if isinstance(history, RunHistory) else ()


def with_skips(dataset: Dataset, skipped: Iterable[tuple[Any, ...]]) -> tuple[Dataset, Skips]:
    """The dataset of a run that leaves out these stretches, and all their slots.

    Args:
        dataset: The dataset.
        skipped: The fields of each ``SkippedStretch``. They replace those of the dataset.

    Raises:
        ConfigError: The dataset is in the original's order.
    """
    stretches = tuple(SkippedStretch(*each) for each in skipped)
    skips = skips_of(stretches)
    if stretches == skipped_of(dataset):
        return dataset, skips
    if not isinstance(dataset, BlendedDataset):
        raise ConfigError(
            'order = "blendcorpus" is the original\'s order, in which no slots can be skipped. '
            'Remove the skips, or set order = "blendtitan".'
        )
    held = dataset.history.held if isinstance(dataset.history, RunHistory) else None
    return in_phases(dataset, phases_of(dataset), held, stretches), skips


def _summed(counts: Sequence[Mapping[str, int]], corpora: Sequence[str]) -> IntArray:
    return np.array([sum(each.get(name, 0) for each in counts) for name in corpora], np.int64)


def settings_of(dataset: BlendedDataset) -> OrderSettings:
    """The settings that never change during the dataset's run."""
    config = dataset.config
    return OrderSettings(
        seed=config.seed,
        split=dataset.split,
        shuffled=config.shuffle_sample_in_corpus,
        blended=config.blend_sample_in_corpus,
    )


def phases_of(dataset: Dataset) -> tuple[Phase, ...]:
    """The phases of a dataset's run: one if it was never changed, none in the original's order."""
    if not isinstance(dataset, BlendedDataset):
        return ()
    if isinstance(dataset.history, RunHistory):
        return dataset.history.phases
    corpora = corpus_shards(
        dataset.catalog,
        _shards_of_corpora(dataset),
        split=dataset.split,
        blended=dataset.config.blend_sample_in_corpus,
    )
    seq_len = dataset.config.seq_length
    return (Phase(first_slot=0, seq_len=seq_len, segments=dataset.segments, corpora=corpora),)


def _shards_of_corpora(dataset: BlendedDataset) -> dict[str, list[int]]:
    """Numbers of the shards of each corpus."""
    rows = dataset.rows
    piece_rows = np.searchsorted(rows.row_starts, rows.piece_starts[:-1], side="right") - 1
    of_piece = dataset.order.row_corpora[piece_rows]
    return {
        name: rows.piece_shards[of_piece == number].tolist()
        for number, name in enumerate(dataset.corpora)
    }


def record_of(dataset: Dataset) -> RunRecord:
    """The record of a dataset's run, for a state."""
    phases = phases_of(dataset)
    phase_facts: dict[str, Any] = {}
    if phases:
        history = dataset.history if isinstance(dataset, BlendedDataset) else None
        held = history.held if isinstance(history, RunHistory) else None
        phase_facts = {
            "seq_length": dataset.config.seq_length,
            "segments": saved_segments(dataset.segments),
            "corpora": held or corpora_held(dataset.catalog),
        }
    return RunRecord(
        fixed_facts=dataset.fixed_facts(),
        phase_facts=phase_facts,
        phases=phases,
        checksums=checksums_held(dataset.catalog),
        skipped=skipped_of(dataset),
    )


def in_phases(
    dataset: BlendedDataset,
    phases: Sequence[Phase],
    held: Mapping[str, Any] | None = None,
    skipped: tuple[SkippedStretch, ...] | None = None,
) -> BlendedDataset:
    """This dataset after the given phases; the last phase describes it.

    ``skipped`` are the stretches of slots that the run leaves out. None: those of the dataset.
    """
    now = phases[-1]
    assert dataset.config.seq_length == now.seq_len
    return BlendedDataset(
        dataset.config,
        dataset.split,
        dataset.rows,
        dataset.weights,
        now.segments,
        now.order(settings_of(dataset)),
        RunHistory(tuple(phases), held, skipped_of(dataset) if skipped is None else skipped),
    )


def in_next_phase(
    dataset: BlendedDataset, phases: Sequence[Phase], slot: int
) -> tuple[BlendedDataset, list[str]]:
    """The dataset with which a run of these phases continues at ``slot``.

    Also returns one line about the continuation of each corpus.
    """
    settings = settings_of(dataset)
    continued = with_next_phase(
        phases,
        settings,
        slot=slot,
        seq_len=dataset.config.seq_length,
        segments=dataset.segments,
        corpora=phases_of(dataset)[-1].corpora,
    )
    return in_phases(dataset, continued), list(account(continued, settings))
