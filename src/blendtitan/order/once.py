"""Every window once: what a validation of a whole split reads."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.chapters import NO_CORPUS, ChapterOrder, SlotPlaces
from blendtitan.order.permutation import mix64

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EachWindowOnce(ChapterOrder):
    """The first epoch of every row, one row after the other. No blend repeats or misses a window.

    Slots from 0 to ``num_windows - 1`` exist.
    """

    rows: IntArray
    """Numbers of the rows. Shape ``(n,)``."""

    row_ends: IntArray
    """Windows of each row and of those before it. Shape ``(n,)``."""

    @classmethod
    def of(cls, order: ChapterOrder) -> Self:
        """The windows of all corpora of an order that has not begun."""
        rows = np.flatnonzero(order.row_corpora != NO_CORPUS)
        ends = np.cumsum(order.streams.num_windows[rows])
        own = {field.name: getattr(order, field.name) for field in fields(order)}
        return cls(**own, rows=rows, row_ends=ends)

    def slot_places(self, slots: IntArray) -> SlotPlaces:
        """What some slots are."""
        at = np.searchsorted(self.row_ends, slots, side="right")
        rows = self.rows[at]
        draws = slots - self.row_ends[at] + self.streams.num_windows[rows]
        places = self.streams.places(rows, draws)
        sample_ids = mix64(places.keys + places.starts.astype(np.uint64))
        corpora = self.row_corpora[rows]
        # Rows of a corpus follow each other, in the order of the corpora.
        first_rows = np.searchsorted(self.row_corpora[self.rows], corpora)
        firsts = np.append(0, self.row_ends)[first_rows]
        return SlotPlaces(corpora, slots - firsts, rows, places, sample_ids)
