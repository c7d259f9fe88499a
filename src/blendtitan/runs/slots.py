"""What the slots of a run are, in all of its chapters: from a state, or from a configuration.

A slot is a window, and a window lies in one shard or in several. Of a shard the order knows its
name, a digest of its contents and how many tokens it has in the split, so that all of this is
told without the data. ``contents.py`` tells the documents, bytes and texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.stretches import row_pieces
from blendtitan.errors import ConfigError
from blendtitan.history.phases import (
    OrderSettings,
    Phase,
    draws_before,
    occurrences,
    segments_read,
)
from blendtitan.history.run import phases_of, settings_of
from blendtitan.order.blend import Segment
from blendtitan.order.slots import Places, SlotOrder
from blendtitan.pace import Paces, consumed_at
from blendtitan.run.segments import Lengths
from blendtitan.state import SavedState, order_settings

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens that lie one after the other in a shard."""

    corpus: str
    shard: str
    """File name without suffix."""

    shard_id: str
    """What tells the contents of shards apart."""

    twin: int
    """Shards of its corpus before it that have the same id: of one name and size."""

    offset: int
    """From the first token that the shard has in the split, inserted EODs included."""

    count: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells its shard from all others."""
        return self.corpus, self.shard_id, self.twin


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What a slot is."""

    slot: int
    chapter: int
    """Number of the chapter, from 0."""

    corpus: str
    draw: int
    """Running number among the samples of the corpus, over all chapters."""

    epoch: int
    window: int
    of_unread: bool
    """Whether it is cut from what its epoch had left when the length changed."""

    sample_id: int
    stretches: tuple[Stretch, ...]
    """Where its ``seq_len + 1`` tokens lie."""


class Slots(Protocol):
    """The slots of a run, whichever order it is in."""

    @property
    def split(self) -> str:
        """Name of the split."""
        ...

    @property
    def chapters(self) -> tuple[Phase, ...]:
        """The chapters of the run; none where the order knows none."""
        ...

    @property
    def lengths(self) -> Lengths:
        """``(first slot, seq_len)`` of each stretch with windows of one length."""
        ...

    @property
    def paces(self) -> Paces:
        """How many samples steps take."""
        ...

    @property
    def segments(self) -> Sequence[Segment]:
        """Stretches with constant shares, as they were and are to be read."""
        ...

    @property
    def corpus_tokens(self) -> dict[str, int]:
        """Tokens of each corpus in the split, as it was when it was last read."""
        ...

    def draws_before(self, slot: int) -> dict[str, int]:
        """How many of the first ``slot`` slots each corpus has."""
        ...

    def tokens_before(self, slot: int) -> dict[str, int]:
        """Tokens of each corpus in the first ``slot`` slots."""
        ...

    def windows(self, slots: IntArray) -> list[Window]:
        """What some slots are. Shape ``(n,)``."""
        ...


def step_slots(paces: Paces, step: int) -> range:
    """Slots that all ranks together train on in a step; a run's first step is 1.

    Raises:
        ConfigError: There is no such step.
    """
    if not paces:
        raise ConfigError(
            "the checkpoint does not tell how many samples a step has. Name the run's "
            "configuration, or ask for a slot"
        )
    if step < 1:
        raise ConfigError(f"step is {step}, expected at least 1: a run's first step is 1")
    return range(consumed_at(paces, step - 1), consumed_at(paces, step))


@dataclass(frozen=True)
class History:
    """The slots of a run in this project's order."""

    chapters: tuple[Phase, ...]
    settings: OrderSettings
    paces: Paces

    @classmethod
    def of_state(cls, state: SavedState, paces: Paces) -> "History":
        """Those of a checkpoint, past and as planned then."""
        return cls(state.phases, order_settings(state.fixed_facts), paces)

    @classmethod
    def of_dataset(cls, dataset: BlendedDataset, paces: Paces) -> "History":
        """Those that a run will have if it is never changed."""
        return cls(phases_of(dataset), settings_of(dataset), paces)

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.settings.split

    @property
    def lengths(self) -> Lengths:
        """``(first slot, seq_len)`` of each chapter."""
        return [(chapter.first_slot, chapter.seq_len) for chapter in self.chapters]

    @cached_property
    def orders(self) -> list["ChapterSlots"]:
        """One for each chapter."""
        return [ChapterSlots.build(chapter, self.settings) for chapter in self.chapters]

    @cached_property
    def firsts(self) -> list[int]:
        """The first slot of each chapter."""
        return [chapter.first_slot for chapter in self.chapters]

    def windows(self, slots: IntArray) -> list[Window]:
        """What some slots are. Shape ``(n,)``."""
        found: dict[int, Window] = {}
        of_slot = np.searchsorted(self.firsts, slots, side="right") - 1
        for number in np.unique(of_slot).tolist():
            before = self.draws_before_chapter(number)
            for window in self.orders[number].windows(slots[of_slot == number], number, before):
                found[window.slot] = window
        return [found[slot] for slot in slots.tolist()]

    @property
    def segments(self) -> Sequence[Segment]:
        """Stretches with constant shares, of all chapters."""
        return segments_read(self.chapters)

    @property
    def corpus_tokens(self) -> dict[str, int]:
        """Tokens of each corpus in the split, in the last chapter that has it."""
        return {
            name: sum(shards.tokens)
            for chapter in self.chapters
            for name, shards in chapter.corpora.items()
        }

    def draws_before(self, slot: int) -> dict[str, int]:
        """How many of the first ``slot`` slots each corpus has."""
        return _summed(draws_before(self.chapters, slot), [1] * len(self.chapters))

    def tokens_before(self, slot: int) -> dict[str, int]:
        """Tokens of each corpus in the first ``slot`` slots."""
        lens = [chapter.seq_len for chapter in self.chapters]
        return _summed(draws_before(self.chapters, slot), lens)

    def draws_before_chapter(self, number: int) -> dict[str, int]:
        """Draws of each corpus in the chapters before."""
        before = draws_before(self.chapters[: number + 1], self.firsts[number])
        return _summed(before, [1] * (number + 1))


def _summed(draws: Sequence[dict[str, int]], factors: Sequence[int]) -> dict[str, int]:
    """Draws of all chapters together, each times its factor."""
    total: dict[str, int] = {}
    for chapter, factor in zip(draws, factors, strict=True):
        for name, count in chapter.items():
            total[name] = total.get(name, 0) + count * factor
    return total


@dataclass(frozen=True, slots=True)
class ChapterSlots:
    """The slots of one chapter, and the shards of its rows."""

    chapter: Phase
    order: SlotOrder
    piece_starts: IntArray
    """Position of the first token of each shard, over all rows; then the end. ``(P + 1,)``"""

    pieces: Sequence[tuple[str, str, str, int]]
    """Corpus, name, id and twin of each shard, as a ``Stretch`` has them."""

    row_starts: IntArray
    """Position of each row's first token; then the end. Shape ``(R + 1,)``."""

    @classmethod
    def build(cls, chapter: Phase, settings: OrderSettings) -> "ChapterSlots":
        """Those of a chapter."""
        tokens: list[int] = []
        pieces: list[tuple[str, str, str, int]] = []
        rows: list[int] = [0]
        for name, shards in chapter.corpora.items():
            tokens += shards.tokens
            named = zip(shards.names, shards.ids, occurrences(shards.ids), strict=True)
            pieces += [(name, *each) for each in named]
            rows += shards.rows(blended=settings.blended).tokens
        order = chapter.order(settings)
        return cls(chapter, order, np.cumsum([0, *tokens]), pieces, np.cumsum(rows))

    def windows(self, slots: IntArray, number: int, before: dict[str, int]) -> Iterator[Window]:
        """What some slots of this chapter are; ``before`` are draws in earlier chapters."""
        found = self.order.places(slots)
        for i, slot in enumerate(slots.tolist()):
            corpus = self.order.blend.corpora[int(found.corpora[i])]
            of_unread = found.is_remainder is not None and bool(found.is_remainder[i])
            yield Window(
                slot=slot,
                chapter=number,
                corpus=corpus,
                draw=int(found.draws[i]) + before.get(corpus, 0),
                epoch=int(found.epochs[i]),
                window=int(found.windows[i]),
                of_unread=of_unread,
                sample_id=int(found.sample_ids[i]),
                stretches=tuple(self._stretches(found, i)),
            )

    def _stretches(self, places: Places, i: int) -> Iterator[Stretch]:
        row = int(places.rows[i])
        first, stop = self.row_starts[row : row + 2].tolist()
        for at, count in self.order.stretches(places, i):
            for piece, offset, part in row_pieces(
                self.piece_starts, (first, stop - first), at, count
            ):
                yield Stretch(*self.pieces[piece], offset, part)
