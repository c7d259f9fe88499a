"""The windows of a run's slots, in all of its phases: from a checkpoint or a configuration.

A slot is a window of one or several shards. The order knows the name of each
shard, a digest of its contents and its tokens in the split, so all of this is known without the
data. ``contents.py`` adds documents, bytes and texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.batch_schedule import BatchSchedule, slots_of, with_jumps
from blendtitan.dataset.stretches import row_pieces
from blendtitan.errors import ConfigError
from blendtitan.history.phases import OrderSettings, Phase, occurrences
from blendtitan.history.record import Fingerprints
from blendtitan.history.run import RunHistory
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.order.blend import Segment
from blendtitan.order.course import NO_SKIPS, Skips
from blendtitan.order.slots import Places, SlotOrder
from blendtitan.original.dataset import OriginalDataset
from blendtitan.settings.segments import Lengths
from blendtitan.state import SavedState, order_settings
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]


class ShardKey(NamedTuple):
    """Identity of a shard in a run, independent of its folder."""

    corpus: str
    name: str
    """File name without suffix."""
    id: str
    """Digest of its contents."""
    occurrence: int
    """Number of earlier shards of the corpus with the same id (same name and size)."""

    def __str__(self) -> str:
        return f"{self.corpus}/{self.name}"


def shard_keys(corpora: Sequence[str], names: Sequence[str], ids: Sequence[str]) -> list[ShardKey]:
    """The keys of some shards, given as columns."""
    numbers = occurrences(zip(corpora, ids, strict=True))
    return [ShardKey(*each) for each in zip(corpora, names, ids, numbers, strict=True)]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive tokens of a shard."""

    key: ShardKey
    offset: int
    """Tokens from the shard's first token in the split, inserted EODs included."""
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The window that a slot reads."""

    slot: int
    phase: int
    """Number of the phase, from 0."""
    corpus: str
    draw: int
    """Running number among the samples of the corpus, over all phases."""
    epoch: int
    window: int
    of_remainder: bool
    """Whether it is cut from the remainder of an epoch that a change interrupted."""
    sample_id: int
    stretches: tuple[Stretch, ...]
    """The stretches that hold its ``seq_len + 1`` tokens."""


def step_slots(run: "Slots", step: int) -> Sequence[int]:
    """Slots that all ranks together train on in a step; a run's first step is 1.

    Raises:
        ConfigError: There is no such step.
    """
    if not run.schedule:
        raise ConfigError(
            "the checkpoint does not say how many samples a step has. Name the run's "
            "configuration, or a slot"
        )
    if step < 1:
        raise ConfigError(f"step is {step}, expected at least 1: a run's first step is 1")
    return slots_of(run.schedule, step, run.skips)


@dataclass(frozen=True)
class History:
    """The slots of a run in this project's order."""

    phases: tuple[Phase, ...]
    settings: OrderSettings
    schedule: BatchSchedule
    skipped: tuple[SkippedStretch, ...] = ()

    @classmethod
    def of_state(cls, state: SavedState, schedule: BatchSchedule) -> Self:
        """The slots of a checkpoint: the past, and the future as planned then."""
        schedule = with_jumps(schedule, state.skips)
        return cls(state.phases, order_settings(state.fixed_facts), schedule, state.skipped)

    @property
    def skips(self) -> Skips:
        """The slots that the run leaves out."""
        return skips_of(self.skipped)

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.settings.split

    @property
    def lengths(self) -> Lengths:
        """``(first slot, seq_len)`` of each phase."""
        return [(phase.first_slot, phase.seq_len) for phase in self.phases]

    @property
    def segments(self) -> Sequence[Segment]:
        """Stretches with constant shares, of all phases."""
        return RunHistory(self.phases, None).segments_read

    @property
    def corpus_tokens(self) -> dict[str, int]:
        """Tokens of each corpus in the split, in the last phase that has it."""
        return {
            name: sum(shards.tokens)
            for phase in self.phases
            for name, shards in phase.corpora.items()
        }

    @cached_property
    def orders(self) -> list["PhaseSlots"]:
        """The slots of each phase."""
        return [PhaseSlots.build(phase, self.settings) for phase in self.phases]

    def draws_before(self, slot: int) -> dict[str, int]:
        """Draws of each corpus in the first ``slot`` slots, without skipped ones."""
        names = sorted(self.corpus_tokens)
        found = RunHistory(self.phases, None, self.skipped).draws_before(slot, names)
        return dict(zip(names, found.tolist(), strict=True))

    def tokens_before(self, slot: int) -> dict[str, int]:
        """Tokens of each corpus in the first ``slot`` slots, without skipped ones."""
        names = sorted(self.corpus_tokens)
        found = RunHistory(self.phases, None, self.skipped).tokens_before(slot, names)
        return dict(zip(names, found.tolist(), strict=True))

    def windows(self, slots: IntArray) -> list[Window]:
        """The windows of some slots, of shape ``(n,)``."""
        found: dict[int, Window] = {}
        firsts = [phase.first_slot for phase in self.phases]
        of_slot = np.searchsorted(firsts, slots, side="right") - 1
        for number in np.unique(of_slot).tolist():
            before = replace(self, skipped=()).draws_before(firsts[number])
            for window in self.orders[number].windows(slots[of_slot == number], number, before):
                found[window.slot] = window
        return [found[slot] for slot in slots.tolist()]


@dataclass(frozen=True, slots=True)
class PhaseSlots:
    """The slots of one phase, and the shards of its rows."""

    order: SlotOrder
    keys: Sequence[ShardKey]
    shard_starts: IntArray
    """Position of the first token of each shard, over all rows; then the end. ``(P + 1,)``"""
    row_starts: IntArray
    """Position of each row's first token; then the end. Shape ``(R + 1,)``."""

    @classmethod
    def build(cls, phase: Phase, settings: OrderSettings) -> Self:
        """The slots of a phase."""
        tokens: list[int] = []
        keys: list[ShardKey] = []
        rows: list[int] = []
        for name, shards in phase.corpora.items():
            tokens += shards.tokens
            keys += shard_keys([name] * len(shards.ids), shards.names, shards.ids)
            rows += shards.rows(blended=settings.blended).tokens
        order = phase.order(settings)
        return cls(order, keys, np.cumsum([0, *tokens]), np.cumsum([0, *rows]))

    def windows(self, slots: IntArray, phase: int, before: dict[str, int]) -> Iterator[Window]:
        """The windows of some slots of this phase; ``before`` holds the draws of earlier phases."""
        found = self.order.places(slots)
        for i, slot in enumerate(slots.tolist()):
            corpus = self.order.blend.corpora[int(found.corpora[i])]
            yield Window(
                slot=slot,
                phase=phase,
                corpus=corpus,
                draw=int(found.draws[i]) + before.get(corpus, 0),
                epoch=int(found.epochs[i]),
                window=int(found.windows[i]),
                of_remainder=found.is_remainder is not None and bool(found.is_remainder[i]),
                sample_id=int(found.sample_ids[i]),
                stretches=tuple(self._stretches(found, i)),
            )

    def _stretches(self, places: Places, i: int) -> Iterator[Stretch]:
        row = int(places.rows[i])
        first, stop = self.row_starts[row : row + 2].tolist()
        for at, count in self.order.stretches(places, i):
            for shard, offset, part in row_pieces(
                self.shard_starts, (first, stop - first), at, count
            ):
                yield Stretch(self.keys[shard], offset, part)

    def row_of(self, stretch: Stretch) -> tuple[int, int] | None:
        """The row that reads a stretch, and its start there; None: this phase does not read it."""
        if stretch.key not in self.keys:
            return None
        position = int(self.shard_starts[self.keys.index(stretch.key)]) + stretch.offset
        row = int(np.searchsorted(self.row_starts, position, side="right")) - 1
        return row, position - int(self.row_starts[row])


@dataclass(frozen=True, slots=True)
class OriginalSlots:
    """The slots of a run in the original's order, from the data and its index."""

    dataset: OriginalDataset
    keys: list[ShardKey]
    starts: IntArray
    """Offset of the first document in the ``.bin`` of each shard."""

    schedule: BatchSchedule
    split: str = "train"
    phases: tuple[Phase, ...] = ()
    skipped: tuple[SkippedStretch, ...] = ()
    skips: Skips = NO_SKIPS

    @classmethod
    def of_dataset(
        cls, dataset: OriginalDataset, catalog: Catalog, schedule: BatchSchedule
    ) -> Self:
        """The slots of a dataset; ``catalog`` is from ``as_one_split``."""
        known = Fingerprints.of_catalog(catalog)
        keys = shard_keys(catalog.corpora, known.names, known.ids)
        return cls(dataset, keys, catalog.token_cuts[:, 0], schedule)

    @property
    def lengths(self) -> Lengths:
        """One length from the first slot on."""
        return [(0, self.dataset.config.seq_length)]

    @property
    def segments(self) -> Sequence[Segment]:
        """One blend for the whole run."""
        return self.dataset.segments_read

    @property
    def corpus_tokens(self) -> dict[str, int]:
        """Tokens of each corpus in the split."""
        return self._by_name(self.dataset.corpus_tokens)

    def draws_before(self, slot: int) -> dict[str, int]:
        """Draws of each corpus in the first ``slot`` slots."""
        return self._by_name(self.dataset.draws_before(slot))

    def tokens_before(self, slot: int) -> dict[str, int]:
        """Tokens of each corpus in the first ``slot`` slots."""
        return self._by_name(self.dataset.tokens_before(slot))

    def _by_name(self, numbers: IntArray) -> dict[str, int]:
        return dict(zip(self.dataset.corpora, numbers.tolist(), strict=True))

    def windows(self, slots: IntArray) -> list[Window]:
        """The windows of some slots, of shape ``(n,)``.

        Raises:
            ConfigError: A slot is beyond the last sample of the order.
            ShardError: An ``.idx`` is missing or damaged.
        """
        plan = self.dataset.plan(slots)
        found: list[Window] = []
        for i, slot in enumerate(slots.tolist()):
            stretches = list(self.dataset.stretches(plan, i))
            number = int(plan.corpora[i])
            shard, window = (int(plan.records[i][name]) for name in ("shard", "window"))
            key, start = self.keys[shard], int(self.starts[shard])
            found.append(
                Window(
                    slot=slot,
                    phase=0,
                    corpus=self.dataset.corpora[number],
                    draw=int(self.dataset.draws_before(slot)[number]),
                    epoch=self.dataset.epoch(shard, window),
                    window=window,
                    of_remainder=False,
                    sample_id=int(plan.sample_ids[i]),
                    stretches=tuple(
                        Stretch(key, begin - start, count) for begin, count in stretches
                    ),
                )
            )
        return found


Slots = History | OriginalSlots
"""The slots of a run, whichever order it is in."""


def as_one_split(catalog: Catalog) -> Catalog:
    """The catalog with every document in train and no EOD inserted."""
    documents, tokens = (
        np.concatenate([cuts[:, :1], np.repeat(cuts[:, 3:], 3, axis=1)], axis=1)
        for cuts in (catalog.document_cuts, catalog.token_cuts)
    )
    no_eod = np.zeros_like(catalog.lacks_eod)
    return replace(catalog, document_cuts=documents, token_cuts=tokens, lacks_eod=no_eod)
