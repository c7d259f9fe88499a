"""What an unfinished epoch has left, when its windows become longer or shorter.

A shuffled epoch leaves its windows unread all over the row. Laid end to end in the order of the
row they are a new row, of which windows of another length are cut: what lay side by side stays
side by side. Which windows were read is arithmetic, so all that is kept is how many of each block
of windows were not.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.permutation import Bits, mix64, permute, unpermute

IntArray = NDArray[np.int64]

# Windows whose number of unread ones is kept as one count: finding one looks at so many.
_BLOCK = 256
# Windows looked at in one NumPy call while they are counted.
_CALL = 1 << 16
_LENGTH_STEP = np.uint64(0xA24BAED4963EE407)


class Unread:
    """The windows of one epoch of one row that were not read, laid end to end.

    Args:
        parent: What the epoch's windows are cut from; None: the row itself.
        seq_len: Length of the epoch's windows, in tokens; neighbours share one token more.
        shift: Offset of window 0.
        num_windows: Windows of the epoch.
        num_read: How many of them were read, from 1 to ``num_windows - 1``.
        key: Key of the epoch's permutation.
        shuffled: Whether windows were read in the order of the permutation, or as they lie.
    """

    def __init__(
        self,
        parent: "Unread | None",
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
        """Tokens left, the last label of each stretch apart."""
        return (self._num_windows - self._num_read) * self._seq_len

    def key(self, seq_len: int) -> int:
        """Key of the permutation of the windows of another length that are cut from here."""
        step = np.array([seq_len], np.uint64) * _LENGTH_STEP
        return int(mix64(np.array([self._key], np.uint64) ^ mix64(step))[0])

    def cut(self, seq_len: int, *, num_read: int) -> "Unread":
        """What is left of the windows of another length cut from here, so many of them read."""
        return Unread(
            self,
            seq_len=seq_len,
            shift=0,
            num_windows=self.num_tokens // seq_len,
            num_read=num_read,
            key=self.key(seq_len),
            shuffled=self._shuffled,
        )

    def stretches(self, start: int, count: int) -> list[tuple[int, int]]:
        """Where tokens ``start`` to ``start + count`` lie in the row: ``(offset, tokens)`` each."""
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
        """Where tokens of the row lie in what is left: ``(offset, tokens)`` each; those left."""
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
        """``(window, place among those left)`` of those of some windows that are left."""
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
        """Windows ``first`` to ``last``, both included, of those left, in the row's order."""
        if not self._shuffled:
            return np.arange(first, last + 1) + self._num_read
        before = self._left_before_block()
        low = int(np.searchsorted(before, first, side="right")) - 1
        high = int(np.searchsorted(before, last, side="right"))
        windows = np.arange(low * _BLOCK, min(high * _BLOCK, self._num_windows))
        left = windows[unpermute(windows, *self._same(len(windows))) >= self._num_read]
        return left[first - before[low] : last + 1 - before[low]]

    def _left_before_block(self) -> IntArray:
        """Windows left before each block, and in all. Shape ``(num_blocks + 1,)``."""
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
        """Size and key, for each of some windows."""
        return np.full(count, self._num_windows), np.full(count, self._key, np.uint64)
