"""Streams: the endless draws of each row of documents, and the windows that they are.

Draw ``d`` of a row of ``N`` windows is, in epoch ``d // N``, the window that the epoch's
permutation puts at place ``d mod N``. When a run goes on with windows of another length, the
epoch that was begun is finished first, with windows cut from what it has left (``unread.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.order.permutation import Bits, epoch_keys, epoch_shifts, permute
from blendtitan.order.unread import Unread
from blendtitan.order.windows import num_windows, tokens_left_over, window_starts

IntArray = NDArray[np.int64]

Past = tuple[tuple[int, int], ...]
"""How far a row was read: ``(seq_len, draws)`` for each length of windows in turn."""


def read_further(past: Past, seq_len: int, draws: int) -> Past:
    """The past of a row after so many draws more, of windows of one length."""
    if draws == 0:
        return past
    if past and past[-1][0] == seq_len:
        return (*past[:-1], (seq_len, past[-1][1] + draws))
    return (*past, (seq_len, draws))


@dataclass(frozen=True, slots=True)
class Begun:
    """Where a row stands when the length of its windows changes."""

    next_epoch: int
    """The first epoch that has none of its windows read."""

    unread: Unread | None
    """What is left of the epoch before it; None: nothing."""


@dataclass(frozen=True, slots=True)
class Places:
    """Which windows some draws are. Arrays have the shape ``(n,)``."""

    epochs: IntArray
    windows: IntArray
    starts: IntArray
    """Offset of the window in its row, or in what its epoch had left."""
    keys: Bits
    """Key of the permutation that the window comes from."""
    of_unread: NDArray[np.bool_]
    """Whether the window is cut from what its epoch had left."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The draws of all rows. Columns of rows have the shape ``(R,)``."""

    seq_len: int
    shuffled: bool
    num_windows: IntArray
    tokens_left_over: IntArray
    keys: Bits
    draws_made: IntArray
    """Draws of each row that were made before, of windows of this length."""
    next_epochs: IntArray
    """Epoch of the row's first window that is not cut from what an epoch had left."""
    num_unread: IntArray
    """Windows that are cut from what an epoch had left."""
    unread: dict[int, Unread]
    """What that was, for the rows that have it."""
    unread_keys: Bits
    """Key of the permutation of these windows."""

    @classmethod
    def build(
        cls,
        num_tokens: IntArray,
        keys: Bits,
        pasts: Sequence[Past],
        *,
        seq_len: int,
        shuffled: bool,
    ) -> Self:
        """Streams of rows of ``num_tokens`` tokens, each going on after its past."""
        now = [past[-1][1] if past and past[-1][0] == seq_len else 0 for past in pasts]
        before = [past[:-1] if draws else past for past, draws in zip(pasts, now, strict=True)]
        begun = {
            row: begun_row(int(num_tokens[row]), int(keys[row]), past, shuffled=shuffled)
            for row, past in enumerate(before)
            if past
        }
        next_epochs, num_unread = np.zeros((2, len(num_tokens)), np.int64)
        unread: dict[int, Unread] = {}
        unread_keys = np.zeros(len(num_tokens), np.uint64)
        for row, stand in begun.items():
            next_epochs[row] = stand.next_epoch
            if stand.unread is not None:
                num_unread[row] = stand.unread.num_tokens // seq_len
                unread[row] = stand.unread
                unread_keys[row] = stand.unread.key(seq_len)
        return cls(
            seq_len=seq_len,
            shuffled=shuffled,
            num_windows=num_windows(num_tokens, seq_len=seq_len),
            tokens_left_over=tokens_left_over(num_tokens, seq_len=seq_len),
            keys=keys,
            draws_made=np.array(now, np.int64),
            next_epochs=next_epochs,
            num_unread=num_unread,
            unread=unread,
            unread_keys=unread_keys,
        )

    def places(self, rows: IntArray, draws: IntArray) -> Places:
        """Which windows are draws ``draws`` of ``rows``, counted from where the rows stand."""
        num_windows = self.num_windows[rows]
        draws = draws + self.draws_made[rows]
        whole = draws - self.num_unread[rows]
        of_unread = whole < 0
        epochs, index = np.divmod(whole, num_windows)
        epochs += self.next_epochs[rows]
        keys = epoch_keys(self.keys[rows], epochs)
        shifts = epoch_shifts(keys, epochs, self.tokens_left_over[rows])
        if self.unread and of_unread.any():
            index = np.where(of_unread, draws, index)
            num_windows = np.where(of_unread, self.num_unread[rows], num_windows)
            epochs = np.where(of_unread, self.next_epochs[rows] - 1, epochs)
            keys = np.where(of_unread, self.unread_keys[rows], keys)
            shifts = np.where(of_unread, 0, shifts)
        windows = permute(index, num_windows, keys) if self.shuffled else index
        starts = window_starts(windows, shifts, seq_len=self.seq_len)
        return Places(epochs, windows, starts, keys, of_unread)


def begun_row(num_tokens: int, key: int, past: Past, *, shuffled: bool) -> Begun:
    """Where a row of ``num_tokens`` tokens stands after its past; ``key`` is the row's."""
    stand = Begun(0, None)
    for seq_len, draws in past:
        left = 0 if stand.unread is None else stand.unread.num_tokens // seq_len
        if stand.unread is not None and draws < left:
            rest = stand.unread.cut(seq_len, num_read=draws) if draws else stand.unread
            stand = Begun(stand.next_epoch, rest)
        else:
            stand = _in_whole_epoch(
                num_tokens, key, stand.next_epoch, draws - left, seq_len=seq_len, shuffled=shuffled
            )
    return stand


def _in_whole_epoch(
    num_tokens: int, key: int, next_epoch: int, draws: int, *, seq_len: int, shuffled: bool
) -> Begun:
    """Where a row stands after ``draws`` windows of whole epochs, the first of them given."""
    size = np.array([num_tokens])
    windows = int(num_windows(size, seq_len=seq_len)[0])
    epochs, num_read = divmod(draws, windows)
    epoch = np.array([next_epoch + epochs])
    if num_read == 0:
        return Begun(int(epoch[0]), None)
    epoch_key = epoch_keys(np.array([key], np.uint64), epoch)
    shift = epoch_shifts(epoch_key, epoch, tokens_left_over(size, seq_len=seq_len))
    unread = Unread(
        None,
        seq_len=seq_len,
        shift=int(shift[0]),
        num_windows=windows,
        num_read=num_read,
        key=int(epoch_key[0]),
        shuffled=shuffled,
    )
    return Begun(int(epoch[0]) + 1, unread)
