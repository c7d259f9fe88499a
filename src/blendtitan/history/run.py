"""A dataset within the history of its run: what a state records of it, and how it continues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.history.fingerprints import checksums_held, corpora_held, corpus_shards
from blendtitan.history.next_phase import account, with_next_phase
from blendtitan.history.phases import (
    OrderSettings,
    Phase,
    as_recorded,
    draws_before,
    segments_read,
)
from blendtitan.history.saved import saved_segments
from blendtitan.order.blend import Segment

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What a saved state records of a run. Everything is JSON but the phases."""

    fixed_facts: dict[str, Any]
    """What the order and the tokens depend on and never changes in a run."""
    phase_facts: dict[str, Any]
    """What the order depends on and only another phase may change."""
    phases: tuple[Phase, ...]
    checksums: dict[str, str]
    """Checksums of each corpus's shards, where known; the order does not depend on them."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """What a resumed run has read."""

    phases: tuple[Phase, ...]
    """The phases of the run; the last is the one that is read."""
    held: Mapping[str, Any] | None
    """What the checkpoint recorded of each corpus. None: what the catalog says now."""

    @property
    def segments_read(self) -> Sequence[Segment]:
        """Stretches with constant shares, of the whole run as read and as planned."""
        return segments_read(self.phases)

    def draws_before(self, slot: int, corpora: Sequence[str]) -> IntArray:
        """Number of samples of each corpus before a slot. Shape ``(num_corpora,)``."""
        return _summed(draws_before(self.phases, slot), corpora)

    def tokens_before(self, slot: int, corpora: Sequence[str]) -> IntArray:
        """Tokens of each corpus in the first ``slot`` samples. Shape ``(num_corpora,)``."""
        lengths = [phase.seq_len for phase in self.phases]
        found = [
            {name: draws * seq_len for name, draws in in_phase.items()}
            for in_phase, seq_len in zip(draws_before(self.phases, slot), lengths, strict=True)
        ]
        return _summed(found, corpora)

    def with_segments(
        self, dataset: BlendedDataset, segments: tuple[Segment, ...]
    ) -> BlendedDataset:
        """The dataset with other segments in its last phase."""
        *before, now = self.phases
        segments = as_recorded(segments, now.segments)
        return in_phases(dataset, [*before, replace(now, segments=segments)], self.held)


def _summed(counts: Sequence[Mapping[str, int]], corpora: Sequence[str]) -> IntArray:
    return np.array([sum(each.get(name, 0) for each in counts) for name in corpora], np.int64)


def settings_of(dataset: BlendedDataset) -> OrderSettings:
    """What never changes during the dataset's run."""
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
        dataset.rows.shards_of_corpus(dataset.order.row_corpora, dataset.corpora),
        split=dataset.split,
        blended=dataset.config.blend_sample_in_corpus,
    )
    seq_len = dataset.config.seq_length
    return (Phase(first_slot=0, seq_len=seq_len, segments=dataset.segments, corpora=corpora),)


def record_of(dataset: Dataset) -> RunRecord:
    """What a state records of a dataset's run."""
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
    )


def in_phases(
    dataset: BlendedDataset, phases: Sequence[Phase], held: Mapping[str, Any] | None = None
) -> BlendedDataset:
    """The dataset after the given phases, the last of which describes it.

    Args:
        dataset: The data as it is now.
        phases: Those of the run.
        held: What the checkpoint recorded of each corpus.
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
        RunHistory(tuple(phases), held),
    )


def in_next_phase(
    dataset: BlendedDataset, phases: Sequence[Phase], slot: int
) -> tuple[BlendedDataset, list[str]]:
    """The dataset with which a run of these phases continues at ``slot``.

    Also returns how each corpus continues: one line each.
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
