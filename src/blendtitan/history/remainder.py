"""Remainders: the unread parts of epochs that were begun before a run was changed.

When a run continues with windows of another length, each row first finishes its current epoch.
A shuffled epoch leaves unread windows all over its row. Laid end to end in the order of the
row, they form a new row, the remainder, from which windows of the new length are cut, so
neighbouring tokens stay neighbours. The read windows follow from arithmetic: only a count per
block of windows is kept.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.epoch import (
    Bits,
    epoch_keys,
    epoch_shifts,
    mix64,
    num_windows,
    permute,
    tokens_left_over,
)
from blendtitan.order.inverse import unpermute
from blendtitan.order.slots import Places, SlotOrder

IntArray = NDArray[np.int64]

Past = tuple[tuple[int, int], ...]
"""The progress of a row: ``(seq_len, draws)`` for each window length in turn."""

# Unread windows are counted in blocks of this many: finding one looks at a whole block.
_BLOCK = 256
# Windows looked at in one NumPy call while they are counted.
_CALL = 1 << 16
_LENGTH_STEP = np.uint64(0xA24BAED4963EE407)


def read_further(past: Past, seq_len: int, draws: int) -> Past:
    """The past of a row after ``draws`` more windows of one length."""
    if draws == 0:
        return past
    if past and past[-1][0] == seq_len:
        return (*past[:-1], (seq_len, past[-1][1] + draws))
    return (*past, (seq_len, draws))


class Remainder:
    """The unread windows of one epoch of one row, laid end to end.

    Args:
        parent: The remainder that the epoch's windows are cut from; None: the row itself.
        seq_len: Length of the epoch's windows, in tokens; neighbours share one token more.
        shift: Offset of window 0.
        num_windows: Windows of the epoch.
        num_read: How many of them were read, from 1 to ``num_windows - 1``.
        key: Key of the epoch's permutation.
        shuffled: Whether windows were read in the order of the permutation, or in row order.
    """

    def __init__(
        self,
        parent: "Remainder | None",
        *,
        seq_len: int,
        shift: int,
        num_windows: int,
        num_read: int,
        key: int,
        shuffled: bool,
    ) -> None:
        assert 0 < num_read < num_windows
        self._parent = parent
        self._seq_len = seq_len
        self._shift = shift
        self._num_windows = num_windows
        self._num_read = num_read
        self._key = key
        self._shuffled = shuffled
        self._counts: IntArray | None = None
        self._counting = threading.Lock()

    @property
    def num_tokens(self) -> int:
        """Tokens left, not counting the last label of each stretch."""
        return (self._num_windows - self._num_read) * self._seq_len

    def key(self, seq_len: int) -> int:
        """Key of the permutation of the windows of another length cut from here."""
        step = np.array([seq_len], np.uint64) * _LENGTH_STEP
        return int(mix64(np.array([self._key], np.uint64) ^ mix64(step))[0])

    def cut(self, seq_len: int, *, num_read: int) -> "Remainder":
        """The remainder after reading ``num_read`` windows of another length cut from this one."""
        return Remainder(
            self,
            seq_len=seq_len,
            shift=0,
            num_windows=self.num_tokens // seq_len,
            num_read=num_read,
            key=self.key(seq_len),
            shuffled=self._shuffled,
        )

    def stretches(self, start: int, count: int) -> list[tuple[int, int]]:
        """Stretches of the row with tokens ``start`` to ``start + count``: ``(offset, tokens)``."""
        first, last = start // self._seq_len, (start + count - 1) // self._seq_len
        found: list[tuple[int, int]] = []
        for place, window in enumerate(self._windows(first, last).tolist(), start=first):
            low = max(start - place * self._seq_len, 0)
            high = min(start + count - place * self._seq_len, self._seq_len)
            offset = self._shift + window * self._seq_len + low
            if found and sum(found[-1]) == offset:
                found[-1] = (found[-1][0], found[-1][1] + high - low)
            else:
                found.append((offset, high - low))
        if self._parent is None:
            return found
        return [part for stretch in found for part in self._parent.stretches(*stretch)]

    def places_of(self, start: int, count: int) -> list[tuple[int, int]]:
        """Stretches of this remainder with those row tokens, if unread: ``(offset, tokens)``."""
        ranges = [(start, count)] if self._parent is None else self._parent.places_of(start, count)
        found: list[tuple[int, int]] = []
        for at, tokens in ranges:
            first = max(0, (at - self._shift) // self._seq_len)
            last = min(self._num_windows - 1, (at + tokens - 1 - self._shift) // self._seq_len)
            for window, place in self._places(np.arange(first, last + 1)):
                begin = self._shift + window * self._seq_len
                low = max(at, begin)
                high = min(at + tokens, begin + self._seq_len)
                found.append((place * self._seq_len + low - begin, high - low))
        return found

    def _places(self, windows: IntArray) -> list[tuple[int, int]]:
        """``(window, place among the unread windows)`` of each unread window among some windows."""
        if not self._shuffled:
            return [(w, w - self._num_read) for w in windows.tolist() if w >= self._num_read]
        is_left = unpermute(windows, *self._same(len(windows))) >= self._num_read
        before = self._left_before_block()
        found: list[tuple[int, int]] = []
        for window in (int(window) for window in windows[is_left]):
            block = np.arange(window // _BLOCK * _BLOCK, window)
            in_block = unpermute(block, *self._same(len(block))) >= self._num_read
            found.append((window, int(before[window // _BLOCK]) + int(in_block.sum())))
        return found

    def _windows(self, first: int, last: int) -> IntArray:
        """Unread windows number ``first`` to ``last``, both included, in the row's order."""
        if not self._shuffled:
            return np.arange(first, last + 1) + self._num_read
        before = self._left_before_block()
        low = int(np.searchsorted(before, first, side="right")) - 1
        high = int(np.searchsorted(before, last, side="right"))
        windows = np.arange(low * _BLOCK, min(high * _BLOCK, self._num_windows))
        left = windows[unpermute(windows, *self._same(len(windows))) >= self._num_read]
        return left[first - before[low] : last + 1 - before[low]]

    def _left_before_block(self) -> IntArray:
        """Unread windows before each block, then all of them. Shape ``(num_blocks + 1,)``."""
        with self._counting:
            if self._counts is None:
                self._counts = self._count()
        return self._counts

    def _count(self) -> IntArray:
        num_blocks = -(-self._num_windows // _BLOCK)
        left = np.full(num_blocks, _BLOCK, np.int64)
        left[-1] = self._num_windows - (num_blocks - 1) * _BLOCK
        for at in range(0, self._num_read, _CALL):
            index = np.arange(at, min(at + _CALL, self._num_read))
            read = permute(index, *self._same(len(index)))
            np.subtract.at(left, read // _BLOCK, 1)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(left)])

    def _same(self, count: int) -> tuple[IntArray, Bits]:
        """Size and key, repeated for each of some windows."""
        return np.full(count, self._num_windows), np.full(count, self._key, np.uint64)


@dataclass(frozen=True, slots=True)
class BegunRow:
    """The position of a row when the length of its windows changes."""

    next_epoch: int
    """The first epoch without a read window."""
    remainder: Remainder | None
    """The remainder of the epoch before it; None: nothing."""


def begun_row(num_tokens: int, key: int, past: Past, *, shuffled: bool) -> BegunRow:
    """The position after its past of a row of ``num_tokens`` tokens with this key."""
    begun = BegunRow(0, None)
    for seq_len, draws in past:
        remainder = begun.remainder
        left = 0 if remainder is None else remainder.num_tokens // seq_len
        if remainder is not None and draws < left:
            if draws:
                begun = BegunRow(begun.next_epoch, remainder.cut(seq_len, num_read=draws))
        else:
            begun = _in_whole_epochs(
                num_tokens, key, begun.next_epoch, draws - left, seq_len=seq_len, shuffled=shuffled
            )
    return begun


def _in_whole_epochs(
    num_tokens: int, key: int, next_epoch: int, draws: int, *, seq_len: int, shuffled: bool
) -> BegunRow:
    """The position of a row ``draws`` windows after the start of epoch ``next_epoch``."""
    size = np.array([num_tokens])
    windows = int(num_windows(size, seq_len=seq_len)[0])
    epochs, num_read = divmod(draws, windows)
    epoch = np.array([next_epoch + epochs])
    if num_read == 0:
        return BegunRow(int(epoch[0]), None)
    epoch_key = epoch_keys(np.array([key], np.uint64), epoch)
    shift = epoch_shifts(epoch_key, epoch, tokens_left_over(size, seq_len=seq_len))
    remainder = Remainder(
        None,
        seq_len=seq_len,
        shift=int(shift[0]),
        num_windows=windows,
        num_read=num_read,
        key=int(epoch_key[0]),
        shuffled=shuffled,
    )
    return BegunRow(int(epoch[0]) + 1, remainder)


@dataclass(frozen=True, slots=True)
class BegunRows:
    """The progress of all rows before a phase. Columns of rows have the shape ``(R,)``."""

    corpus_draws: IntArray
    """Draws of each corpus since the present blend of its rows began. Shape ``(num_corpora,)``."""
    row_draws: IntArray
    """Draws of each row with windows of the present length."""
    next_epochs: IntArray
    """Epoch of the row's first window that is not cut from a remainder."""
    num_remaining: IntArray
    """Windows cut from the row's remainder."""
    remainders: dict[int, Remainder]
    """The remainders, by row."""
    remainder_keys: Bits
    """Key of the permutation of these windows."""

    @classmethod
    def build(
        cls,
        order: SlotOrder,
        num_tokens: Sequence[int],
        pasts: Sequence[Past],
        draws: Sequence[int],
    ) -> Self:
        """Build the positions of rows after their pasts, and of corpora after their draws."""
        seq_len = order.seq_len
        now = [past[-1][1] if past and past[-1][0] == seq_len else 0 for past in pasts]
        next_epochs, num_remaining = np.zeros((2, len(pasts)), np.int64)
        remainder_keys = np.zeros(len(pasts), np.uint64)
        remainders: dict[int, Remainder] = {}
        for row, past in enumerate(pasts):
            before = past[:-1] if now[row] else past
            key = int(order.keys[row])
            begun = begun_row(num_tokens[row], key, before, shuffled=order.shuffled)
            next_epochs[row] = begun.next_epoch
            if begun.remainder is not None:
                remainders[row] = begun.remainder
                num_remaining[row] = begun.remainder.num_tokens // seq_len
                remainder_keys[row] = begun.remainder.key(seq_len)
        return cls(
            corpus_draws=np.array(draws, np.int64),
            row_draws=np.array(now, np.int64),
            next_epochs=next_epochs,
            num_remaining=num_remaining,
            remainders=remainders,
            remainder_keys=remainder_keys,
        )

    def only(self, corpus: int) -> Self:
        """The same for one corpus."""
        return replace(self, corpus_draws=self.corpus_draws[[corpus]])

    def places(self, order: SlotOrder, corpora: IntArray, draws: IntArray) -> Places:
        """The places of some draws of the order. Shapes ``(n,)``."""
        rows, row_draws = order.trees.leaves(corpora, draws + self.corpus_draws[corpora])
        row_draws = row_draws + self.row_draws[rows]
        whole = row_draws - self.num_remaining[rows]
        epochs, index = np.divmod(whole, order.row_windows[rows])
        epochs += self.next_epochs[rows]
        places = order.places_in_epochs(corpora, draws, rows, epochs, index)
        is_remainder = whole < 0
        if not is_remainder.any():
            return places
        self._cut(order, places, row_draws, np.flatnonzero(is_remainder))
        return replace(places, is_remainder=is_remainder)

    def _cut(self, order: SlotOrder, places: Places, draws: IntArray, of: IntArray) -> None:
        """Replace some places by windows cut from the remainders of their rows."""
        rows = places.rows[of]
        keys = self.remainder_keys[rows]
        sizes = self.num_remaining[rows]
        windows = permute(draws[of], sizes, keys) if order.shuffled else draws[of]
        starts = windows * order.seq_len
        places.epochs[of] = self.next_epochs[rows] - 1
        places.windows[of], places.starts[of] = windows, starts
        places.sample_ids[of] = mix64(keys + starts.astype(np.uint64))

    def first_tokens(self, places: Places) -> IntArray:
        """Offset in its row of the first token of each window. Shape ``(n,)``."""
        assert places.is_remainder is not None
        firsts = places.starts.copy()
        for i in np.flatnonzero(places.is_remainder).tolist():
            remainder = self.remainders[int(places.rows[i])]
            firsts[i] = remainder.stretches(int(firsts[i]), 1)[0][0]
        return firsts

    def stretches(self, row: int, start: int, seq_len: int) -> list[tuple[int, int]]:
        """The pieces of a window of a remainder, as ``(offset, tokens)`` in its row."""
        *others, (offset, tokens) = self.remainders[row].stretches(start, seq_len)
        # The last label is the next token of the row.
        return [*others, (offset, tokens + 1)]
