"""Windows: a row of ``T`` tokens cut into stretches of ``seq_len + 1``.

Window ``i`` of an epoch is the tokens ``i * L + shift`` to ``i * L + shift + L`` (both
included), with ``L = seq_len``. Neighbours share one token: the last label of a window is the
first input of the next. The shift is 0 in epoch 0 and differs from epoch to epoch after it, so
that the tokens left over at the end are not the same ones every time.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def num_windows(num_tokens: NDArray[np.int64], *, seq_len: int) -> NDArray[np.int64]:
    """Windows in one epoch of rows with ``num_tokens`` tokens: ``(T - 1) // L``, at least 1.

    A row of fewer than ``L + 1`` tokens has one window, which wraps around. Shapes ``(n,)``.
    """
    return np.maximum((num_tokens - 1) // seq_len, 1)


def tokens_left_over(num_tokens: NDArray[np.int64], *, seq_len: int) -> NDArray[np.int64]:
    """Tokens of a row that the windows of one epoch leave out: the largest shift.

    Shapes ``(n,)``.
    """
    return (num_tokens - 1) % seq_len


def window_starts(
    windows: NDArray[np.int64], shifts: NDArray[np.int64], *, seq_len: int
) -> NDArray[np.int64]:
    """Offset in its row of the first token of each window. Shapes ``(n,)``."""
    return windows * seq_len + shifts


def row_pieces(
    piece_starts: NDArray[np.int64], row: tuple[int, int], start: int, count: int
) -> Iterator[tuple[int, int, int]]:
    """``(piece, offset in it, tokens)`` of a stretch of a row, in order.

    Args:
        piece_starts: Position of the first token of each piece of all rows, growing; then the end
            of the last. Pieces without tokens hold none.
        row: Position of the row's first token, and its tokens.
        start: Offset of the stretch in the row. Offsets wrap around at its end.
        count: Tokens of the stretch.
    """
    row_start, size = row
    while count:
        position = row_start + start % size
        piece = int(np.searchsorted(piece_starts, position, side="right")) - 1
        offset = position - int(piece_starts[piece])
        take = min(count, int(piece_starts[piece + 1]) - position)
        yield piece, offset, take
        start += take
        count -= take
