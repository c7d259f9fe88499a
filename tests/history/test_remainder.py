"""What an unfinished epoch has left: all of it, once, side by side where it lay side by side."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.history.remainder import Remainder
from blendtitan.order.epoch import permute
from blendtitan.order.inverse import unpermute


def windows_left(num_windows: int, num_read: int, key: int, *, shuffled: bool) -> list[int]:
    """By brute force, in the order of the row."""
    read = np.arange(num_read)
    if shuffled:
        read = permute(read, np.full(num_read, num_windows), np.full(num_read, key, np.uint64))
    return sorted(set(range(num_windows)) - set(read.tolist()))


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_unpermute_is_the_inverse_of_permute(size: int, key: int) -> None:
    sizes, keys = np.full(size, size), np.full(size, key, np.uint64)
    images = permute(np.arange(size), sizes, keys)

    assert unpermute(images, sizes, keys).tolist() == list(range(size))


@given(
    num_windows=st.integers(2, 2000),
    read=st.floats(0, 1),
    seq_len=st.integers(1, 9),
    shift=st.integers(0, 8),
    key=st.integers(0, 2**64 - 1),
    shuffled=st.booleans(),
    data=st.data(),
)
def test_stretches_are_the_tokens_of_the_windows_left(
    num_windows: int,
    read: float,
    seq_len: int,
    shift: int,
    key: int,
    shuffled: bool,
    data: st.DataObject,
) -> None:
    num_read = min(max(1, int(read * num_windows)), num_windows - 1)
    unread = Remainder(
        None, seq_len=seq_len, shift=shift, num_windows=num_windows, num_read=num_read,
        key=key, shuffled=shuffled,
    )  # fmt: skip
    left = windows_left(num_windows, num_read, key, shuffled=shuffled)
    expected = [shift + w * seq_len + i for w in left for i in range(seq_len)]
    start = data.draw(st.integers(0, len(expected) - 1))
    count = data.draw(st.integers(1, len(expected) - start))
    stretches = unread.stretches(start, count)

    assert unread.num_tokens == len(expected)
    tokens = [offset + i for offset, length in stretches for i in range(length)]
    assert tokens == expected[start : start + count]


@given(
    key=st.integers(0, 2**64 - 1),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    shuffled=st.booleans(),
)
def test_remainders_of_remainders_are_found_through_all_lengths(
    key: int, lengths: list[int], shuffled: bool
) -> None:
    """Each length reads a third of what it can; no token is read twice or lost for good."""
    unread = Remainder(
        None, seq_len=5, shift=2, num_windows=90, num_read=30, key=key, shuffled=shuffled
    )
    remaining = [t for s, n in unread.stretches(0, unread.num_tokens) for t in range(s, s + n)]
    for seq_len in lengths:
        windows = len(remaining) // seq_len
        if windows < 3:
            return
        num_read = windows // 3
        left = windows_left(windows, num_read, unread.key(seq_len), shuffled=shuffled)
        unread = unread.cut(seq_len, num_read=num_read)
        stretches = unread.stretches(0, unread.num_tokens)

        remaining = [t for w in left for t in remaining[w * seq_len : (w + 1) * seq_len]]
        assert [t for s, n in stretches for t in range(s, s + n)] == remaining
