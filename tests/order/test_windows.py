"""Windows: seq_len + 1 tokens, neighbours share one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.dataset.stretches import row_pieces
from blendtitan.order.epoch import num_windows, tokens_left_over, window_starts


@given(num_tokens=st.integers(1, 500), seq_len=st.integers(1, 40))
def test_the_number_of_windows_is_the_largest_that_fits(num_tokens: int, seq_len: int) -> None:
    by_hand = 0
    while by_hand * seq_len + seq_len + 1 <= num_tokens:
        by_hand += 1

    assert num_windows(np.array([num_tokens]), seq_len=seq_len)[0] == max(by_hand, 1)


@given(num_tokens=st.integers(2, 500), seq_len=st.integers(1, 40))
def test_the_largest_shift_still_fits_and_reaches_the_last_token(
    num_tokens: int, seq_len: int
) -> None:
    tokens = np.array([num_tokens])
    last = num_windows(tokens, seq_len=seq_len) - 1
    shift = tokens_left_over(tokens, seq_len=seq_len)
    if num_tokens > seq_len:
        end = window_starts(last, shift, seq_len=seq_len)[0] + seq_len + 1

        assert end == num_tokens


def test_neighbours_share_one_token() -> None:
    starts = window_starts(np.array([0, 1, 2]), np.zeros(3, np.int64), seq_len=8)

    assert starts.tolist() == [0, 8, 16]


def test_a_stretch_of_a_row_is_cut_where_pieces_end_and_wraps_around() -> None:
    """Two rows: pieces of 3, 0 and 4 tokens, and one of 2."""
    piece_starts = np.array([0, 3, 3, 7, 9])

    assert [*row_pieces(piece_starts, (0, 7), 1, 8)] == [(0, 1, 2), (2, 0, 4), (0, 0, 2)]
    assert [*row_pieces(piece_starts, (7, 2), 1, 4)] == [(3, 1, 1), (3, 0, 2), (3, 0, 1)]
    assert [*row_pieces(piece_starts, (0, 7), 4, 0)] == []
