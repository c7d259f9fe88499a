"""The order backwards: which slots read a stretch of a row.

Windows that overlap the stretch are few in each epoch, and each step of the order has an inverse:
the permutation of an epoch is undone, and the slot of a draw is found by bisection over how many
draws come before a slot.
"""

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.chapters import ChapterOrder
from blendtitan.order.permutation import epoch_keys, epoch_shifts, unpermute
from blendtitan.order.streams import Streams

IntArray = NDArray[np.int64]


def slots_reading(
    order: ChapterOrder, row: int, *, start: int, count: int, stop_slot: int
) -> list[int]:
    """Slots of a chapter whose windows may hold some tokens of a row; no others do.

    Args:
        order: Of the chapter.
        row: Number of the row.
        start: Offset of the first token in the row.
        count: How many tokens, at least 1.
        stop_slot: Slots below this one are looked for.

    Returns:
        Slots in growing order. A few of them may hold the token before the first one instead.
    """
    corpus = int(order.row_corpora[row])
    made = int(order.draws_made[corpus])
    num_slots = max(0, stop_slot - order.first_slot)
    num_draws = int(order.blend.draws_before(num_slots)[corpus])

    def row_draws_before(draw: int) -> int:
        return int(order.trees.draws_before(corpus, draw)[row])

    def draws_before(slot: int) -> int:
        return int(order.blend.draws_before(slot)[corpus])

    limit = row_draws_before(made + num_draws)
    slots: list[int] = []
    for row_draw in sorted(_row_draws(order.streams, row, start, count, limit)):
        tree_draw = bisect_right(range(made + num_draws), row_draw, key=row_draws_before) - 1
        if tree_draw < made:  # of an earlier chapter
            continue
        slot = bisect_right(range(num_slots), tree_draw - made, key=draws_before) - 1
        slots.append(order.first_slot + slot)
    return slots


def _row_draws(streams: Streams, row: int, start: int, count: int, limit: int) -> Iterator[int]:
    """Draws of a row, below ``limit``, whose windows may hold some of its tokens."""
    made = int(streams.draws_made[row])
    for draw in [*_draws_of_unread(streams, row, start, count)]:
        if 0 <= draw - made < limit:
            yield draw - made
    num_windows, num_unread = int(streams.num_windows[row]), int(streams.num_unread[row])
    num_epochs = -(-(limit + made - num_unread) // num_windows)
    for epoch in range(max(0, num_epochs)):
        number = np.array([int(streams.next_epochs[row]) + epoch])
        for index in _places_in_epoch(streams, row, start, count, number):
            draw = num_unread + epoch * num_windows + index - made
            if 0 <= draw < limit:
                yield draw


def _places_in_epoch(
    streams: Streams, row: int, start: int, count: int, epoch: IntArray
) -> list[int]:
    """Places in a whole epoch of the windows that hold some tokens of a row."""
    seq_len, num_windows = streams.seq_len, int(streams.num_windows[row])
    key = epoch_keys(streams.keys[[row]], epoch)
    shift = int(epoch_shifts(key, epoch, streams.tokens_left_over[[row]])[0])
    # Window w has the tokens w * L + shift to w * L + shift + L, both included. A single one may
    # wrap around: it is taken whatever it holds.
    first = (start - shift - 1) // seq_len if num_windows > 1 else 0
    last = (start + count - 1 - shift) // seq_len if num_windows > 1 else 0
    windows = np.arange(max(0, first), min(num_windows - 1, last) + 1)
    if not streams.shuffled:
        return windows.tolist()
    sizes = np.full(len(windows), num_windows)
    return unpermute(windows, sizes, np.repeat(key, len(windows))).tolist()


def _draws_of_unread(streams: Streams, row: int, start: int, count: int) -> Iterator[int]:
    """Places, among windows cut from what an epoch had left, of those that hold some tokens."""
    if row not in streams.unread:
        return
    num_unread = int(streams.num_unread[row])
    # The last label of a window is the token that follows in the row, whatever was left there.
    low = max(0, start - 1)
    places = streams.unread[row].places_of(low, start + count - low)
    windows = {
        window
        for offset, tokens in places
        for window in range(offset // streams.seq_len, (offset + tokens - 1) // streams.seq_len + 1)
        if window < num_unread
    }
    found = np.array(sorted(windows), np.int64)
    if not streams.shuffled or not len(found):
        yield from found.tolist()
        return
    keys = np.full(len(found), streams.unread_keys[row])
    yield from unpermute(found, np.full(len(found), num_unread), keys).tolist()
