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
from blendtitan.errors import ConfigError
from blendtitan.storage.removed_documents import RemovedDocuments

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Removal(NamedTuple):
    """The documents of the list that a run left out from some slot on."""

    first_slot: int
    num_documents: int
    """Documents from the start of the list, repetitions not counted."""
    digest: str
    """Digest of them."""


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

    def mark(self, position: int, slot: int, out: BoolArray) -> None:
        """Mark the tokens of ``out``, from ``position`` on, that a slot is read without."""
        first = int(np.searchsorted(self.stops, position, side="right"))
        last = int(np.searchsorted(self.starts, position + len(out)))
        for i in range(first, last):
            if self.first_slots[i] <= slot:
                out[max(0, int(self.starts[i]) - position) : int(self.stops[i]) - position] = True


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


def removed_tokens(dataset: BlendedDataset, plan: Plan, start: int, stop: int) -> BoolArray:
    """True where a token belongs to a document that its slot is read without.

    Shape ``(stop - start, L + 1)``, for samples ``start`` to ``stop`` of a plan.
    """
    spans, rows, places = dataset.rows.removed, dataset.rows, plan.places
    assert spans is not None
    marks = np.zeros((stop - start, dataset.config.seq_length + 1), np.bool_)
    of_plan = slice(start, stop)
    own = places.rows[of_plan]
    # A window that is not contiguous is always looked at.
    is_near = spans.near(rows.row_starts[own] + places.starts[of_plan], marks.shape[1])
    is_near |= plan.at_bytes[of_plan] < 0
    for i in np.flatnonzero(is_near).tolist():
        slot, filled = int(plan.slots[start + i]), 0
        for position, count in _stretches(dataset, plan, start + i):
            spans.mark(position, slot, marks[i, filled : filled + count])
            filled += count
    return marks


def _stretches(dataset: BlendedDataset, plan: Plan, at: int) -> Iterator[tuple[int, int]]:
    """``(position, tokens)`` of each part of a sample that is contiguous in the rows."""
    row = int(plan.places.rows[at])
    first, size = int(dataset.rows.row_starts[row]), int(dataset.rows.num_tokens[row])
    for offset, left in dataset.order.stretches(plan.places, at):
        while left:
            offset %= size
            count = min(left, size - offset)
            yield first + offset, count
            offset, left = offset + count, left - count


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
    removed = removed_tokens(dataset, plan, start, start + len(labels))
    labels[removed[:, 1:] | removed[:, :-1]] = IGNORE_INDEX
