"""Every window once: the order of a validation of a whole split."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.slots import NO_CORPUS, Places, SlotOrder

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EachWindowOnce(SlotOrder):
    """The first epoch of every row, one row after the other, in ``num_windows`` slots from 0."""

    rows: IntArray
    """Numbers of the rows. Shape ``(n,)``."""

    row_ends: IntArray
    """Windows of each row and of those before it. Shape ``(n,)``."""

    @classmethod
    def of(cls, order: SlotOrder) -> Self:
        """The windows of all corpora of an order of an unchanged run."""
        rows = np.flatnonzero(order.row_corpora != NO_CORPUS)
        ends = np.cumsum(order.row_windows[rows])
        own = {field.name: getattr(order, field.name) for field in fields(order)}
        return cls(**own, rows=rows, row_ends=ends)

    def places(self, slots: IntArray) -> Places:
        """The windows of some slots. Shape ``(n,)``."""
        at = np.searchsorted(self.row_ends, slots, side="right")
        rows = self.rows[at]
        index = slots - self.row_ends[at] + self.row_windows[rows]
        corpora = self.row_corpora[rows]
        # The rows of a corpus follow each other, in the order of the corpora.
        first_rows = np.searchsorted(self.row_corpora[self.rows], corpora)
        draws = slots - np.append(0, self.row_ends)[first_rows]
        return self.places_in_epochs(corpora, draws, rows, np.zeros_like(rows), index)
