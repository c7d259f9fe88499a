"""The order backwards: the slots that read a stretch of a row.

Few windows of each epoch overlap the stretch, and each step of the order has an inverse: the
permutation of an epoch is undone, and the slot of a draw is found by bisection over the number of
draws before a slot.
"""

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blendtitan.history.remainder import BegunRows
from blendtitan.order.epoch import epoch_keys, epoch_shifts
from blendtitan.order.inverse import unpermute
from blendtitan.order.slots import SlotOrder

IntArray = NDArray[np.int64]


def slots_reading(
    order: SlotOrder, row: int, *, start: int, count: int, stop_slot: int
) -> list[int]:
    """The slots of a phase whose windows may hold some tokens of a row; no others do.

    Args:
        order: The order of the phase.
        row: Number of the row.
        start: Offset of the first token in the row.
        count: Number of tokens, at least 1.
        stop_slot: Only slots below this one are returned.

    Returns:
        Slots in growing order. A few of them may hold the token before the first one instead.
    """
    corpus = int(order.row_corpora[row])
    begun = order.begun
    made = int(begun.corpus_draws[corpus]) if isinstance(begun, BegunRows) else 0
    num_slots = max(0, stop_slot - order.first_slot)
    num_draws = int(order.blend.draws_before(num_slots)[corpus])

    def row_draws_before(draw: int) -> int:
        return int(order.trees.draws_before(corpus, draw)[row])

    def draws_before(slot: int) -> int:
        return int(order.blend.draws_before(slot)[corpus])

    limit = row_draws_before(made + num_draws)
    slots: list[int] = []
    for row_draw in sorted(_row_draws(order, row, start, count, limit)):
        tree_draw = bisect_right(range(made + num_draws), row_draw, key=row_draws_before) - 1
        if tree_draw < made:  # of an earlier phase
            continue
        slot = bisect_right(range(num_slots), tree_draw - made, key=draws_before) - 1
        slots.append(order.first_slot + slot)
    return slots


def _row_draws(order: SlotOrder, row: int, start: int, count: int, limit: int) -> Iterator[int]:
    """Draws of a row, below ``limit``, whose windows may hold some of its tokens."""
    made = num_remaining = next_epoch = 0
    if isinstance(order.begun, BegunRows):
        made = int(order.begun.row_draws[row])
        num_remaining = int(order.begun.num_remaining[row])
        next_epoch = int(order.begun.next_epochs[row])
        for draw in _draws_of_remainder(order, order.begun, row, start, count):
            if 0 <= draw - made < limit:
                yield draw - made
    num_windows = int(order.row_windows[row])
    num_epochs = -(-(limit + made - num_remaining) // num_windows)
    for epoch in range(max(0, num_epochs)):
        number = np.array([next_epoch + epoch])
        for index in _places_in_epoch(order, row, start, count, number):
            draw = num_remaining + epoch * num_windows + index - made
            if 0 <= draw < limit:
                yield draw


def _places_in_epoch(
    order: SlotOrder, row: int, start: int, count: int, epoch: IntArray
) -> list[int]:
    """Places in a whole epoch of the windows that hold some tokens of a row."""
    seq_len, num_windows = order.seq_len, int(order.row_windows[row])
    key = epoch_keys(order.keys[[row]], epoch)
    shift = int(epoch_shifts(key, epoch, order.left_over[[row]])[0])
    # Window w has the tokens w * L + shift to w * L + shift + L, both included. A single one may
    # wrap around: it is taken whatever it holds.
    first = (start - shift - 1) // seq_len if num_windows > 1 else 0
    last = (start + count - 1 - shift) // seq_len if num_windows > 1 else 0
    windows = np.arange(max(0, first), min(num_windows - 1, last) + 1)
    if not order.shuffled:
        return windows.tolist()
    sizes = np.full(len(windows), num_windows)
    return unpermute(windows, sizes, np.repeat(key, len(windows))).tolist()


def _draws_of_remainder(
    order: SlotOrder, begun: BegunRows, row: int, start: int, count: int
) -> list[int]:
    """Places, among the windows cut from a remainder, of those that hold some tokens."""
    if row not in begun.remainders:
        return []
    num_remaining = int(begun.num_remaining[row])
    # The last label of a window is the token that follows in the row, whatever was left there.
    low = max(0, start - 1)
    windows = {
        window
        for offset, tokens in begun.remainders[row].places_of(low, start + count - low)
        for window in range(offset // order.seq_len, (offset + tokens - 1) // order.seq_len + 1)
        if window < num_remaining
    }
    found = np.array(sorted(windows), np.int64)
    if not order.shuffled or not len(found):
        return found.tolist()
    keys = np.full(len(found), begun.remainder_keys[row])
    return unpermute(found, np.full(len(found), num_remaining), keys).tolist()
