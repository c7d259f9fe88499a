"""Removed documents in samples: their tokens are read as EOD, and have no labels.

No token moves: a removed document keeps its length. With intra-document masking each of its tokens
is a document of its own, so that no other token attends to it.

Shapes: B = rows, L = sequence length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.blended import BlendedDataset, Plan
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.dataset.interface import Dataset, PlannedSlots
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.stretches import pieces_of
from blendtitan.errors import ConfigError
from blendtitan.storage.removed_documents import RemovedDocuments
from blendtitan.visible import counted

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Removal(NamedTuple):
    """The documents of the list that a run left out from some slot on."""

    first_slot: int
    num_documents: int
    """Documents from the start of the list, repetitions not counted."""
    digest: str
    """Digest of them."""

    def __str__(self) -> str:
        return f"{counted(self.num_documents, 'document')} from slot {self.first_slot:,}"


@dataclass(frozen=True, slots=True)
class RemovedSpans:
    """Removed documents of one split, as positions in its rows, in order. Shapes ``(n,)``."""

    starts: IntArray
    stops: IntArray
    first_slots: IntArray
    """The first slot that is read without each document."""
    removals: tuple[Removal, ...] = ()
    """When the list grew, in a run that was resumed."""

    def always(self, rows: Rows) -> Rows:
        """The same rows, of whose slots none is read with a removed document."""
        return replace(rows, removed=replace(self, first_slots=np.zeros_like(self.first_slots)))

    def near(self, positions: IntArray, count: int) -> BoolArray:
        """Whether a document touches the ``count`` tokens from each position. Shape ``(n,)``."""
        first = np.searchsorted(self.stops, positions, side="right")
        return first < np.searchsorted(self.starts, positions + count)

    def inside(self, position: int, count: int, slot: int) -> list[tuple[int, int]]:
        """The parts of ``count`` tokens from ``position`` on that a slot is read without."""
        first = int(np.searchsorted(self.stops, position, side="right"))
        last = int(np.searchsorted(self.starts, position + count))
        return [
            (max(0, int(self.starts[i]) - position), min(count, int(self.stops[i]) - position))
            for i in range(first, last)
            if self.first_slots[i] <= slot
        ]


def without_removed(rows: Rows) -> Rows:
    """Rows that are read without the removed documents of their catalog.

    Raises:
        ConfigError: The catalog was read with a configuration that removes none.
    """
    if rows.catalog.removed is None:
        raise ConfigError(
            "removed_documents is set, but the catalog was read without it. Read the catalog with "
            "the same configuration."
        )
    return with_removed_spans(rows)


def with_removed_spans(
    rows: Rows, first_slots: IntArray | None = None, removals: Sequence[Removal] = ()
) -> Rows:
    """Rows that are read without the removed documents of their catalog.

    Args:
        rows: The rows of a split.
        first_slots: The first slot that is read without each document of the list. None: 0. Only
            the training split has slots of a run.
        removals: When the list grew.
    """
    catalog, split = rows.catalog, rows.split
    removed = catalog.removed
    if removed is None:  # no list any more
        removed = RemovedDocuments.from_json([[], [], [], []])
    if first_slots is None or SPLITS[split] != "train":
        first_slots = np.zeros(len(removed), np.int64)
    cuts = catalog.document_cuts[removed.shards]
    inserted = catalog.lacks_eod[removed.shards].astype(np.int64)
    # Inserted EODs of earlier documents of the split, and its own.
    before = inserted * (removed.documents - cuts[:, split])
    split_starts = catalog.token_cuts[removed.shards, split]
    piece_starts = np.full(len(catalog.prefixes), -1, np.int64)
    piece_starts[rows.piece_shards] = rows.piece_starts[:-1]
    at = piece_starts[removed.shards] - split_starts + before
    starts, stops = removed.starts + at, removed.stops + at + inserted
    is_here = (cuts[:, split] <= removed.documents) & (removed.documents < cuts[:, split + 1])
    is_here &= (starts < stops) & (piece_starts[removed.shards] >= 0)
    order = np.flatnonzero(is_here)[np.argsort(starts[is_here])]
    spans = RemovedSpans(starts[order], stops[order], first_slots[order], tuple(removals))
    return replace(rows, removed=spans)


def removed_parts(
    dataset: BlendedDataset, plan: Plan, start: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """``(row, first token, end)`` of each part of a removed document in some samples.

    Rows count from sample ``start`` of a plan; the samples end before ``stop``.
    """
    spans, rows, places = dataset.rows.removed, dataset.rows, plan.places
    assert spans is not None
    positions = rows.row_starts[places.rows[start:stop]] + places.starts[start:stop]
    is_near = spans.near(positions, dataset.config.seq_length + 1)
    # A window that is not contiguous is always looked at.
    is_near |= plan.at_bytes[start:stop] < 0
    for row in np.flatnonzero(is_near).tolist():
        slot, filled = int(plan.slots[start + row]), 0
        for position, count in _stretches(dataset, plan, start + row):
            for first, end in spans.inside(position, count, slot):
                yield row, filled + first, filled + end
            filled += count


def _stretches(dataset: BlendedDataset, plan: Plan, at: int) -> Iterator[tuple[int, int]]:
    """``(position, tokens)`` of each part of a sample that is contiguous in the rows."""
    rows, row = dataset.rows, int(plan.places.rows[at])
    for start, count in dataset.order.stretches(plan.places, at):
        for piece, offset, part in pieces_of(rows, row, start, count):
            yield int(rows.piece_starts[piece]) + offset, part


def blank_removed(
    tokens: NDArray[np.integer], dataset: BlendedDataset, plan: Plan, start: int
) -> None:
    """Replace in place the tokens of removed documents by EOD.

    Args:
        tokens: Shape ``(B, L + 1)``.
        dataset: The dataset that they were read from.
        plan: A plan of it.
        start: The sample of the first row in the plan.
    """
    eod_id = dataset.config.eod_token_id
    assert eod_id is not None
    for row, first, end in removed_parts(dataset, plan, start, start + len(tokens)):
        tokens[row, first:end] = eod_id


def mask_removed(labels: IntArray, dataset: Dataset, plan: PlannedSlots, start: int) -> None:
    """Mask in place the labels that are a token of a removed document, or follow one.

    Args:
        labels: Shape ``(B, L)``.
        dataset: The dataset that the samples were read from.
        plan: A plan of it.
        start: The sample of the first row in the plan.
    """
    assert isinstance(dataset, BlendedDataset)  # other orders refuse a list
    assert isinstance(plan, Plan)
    for row, first, end in removed_parts(dataset, plan, start, start + len(labels)):
        labels[row, max(0, first - 1) : end] = IGNORE_INDEX
