"""Epochs: the windows of a row of documents, and the order in which an epoch visits them.

Window ``i`` of a row of ``T`` tokens is the tokens ``i * L + shift`` to ``i * L + shift + L`` (both
included), with ``L = seq_len``. Neighbours share one token: the last label of a window is the first
input of the next. The shift is 0 in epoch 0 and drawn anew in each later epoch, so that the tokens
left over at the end differ from epoch to epoch.

The order of an epoch is a keyed permutation of ``0 .. n - 1``, computed per element and never
stored. A balanced Feistel network permutes the numbers of an even count of bits; numbers that fall
outside ``0 .. n - 1`` go through it again (cycle walking). All functions take arrays and work on
each element with its own key, so that one call serves samples of many corpora and epochs.

Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (2002); the mix is the
finaliser of splitmix64 (Steele, Lea, Flood 2014).
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
IntArray = NDArray[np.int64]

# Six rounds are enough for large domains; with ten, every order of a handful of windows is about
# equally likely as well.
_ROUNDS = 10
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the increment of splitmix64
ROUND_SALTS = np.array([_GOLDEN * (r + 1) & (1 << 64) - 1 for r in range(_ROUNDS)], np.uint64)
_EPOCH_STEP = np.uint64(0xD1B54A32D192ED03)
_SHIFT_SALT = np.uint64(0x8CB92BA72F3D8DD7)


def num_windows(num_tokens: IntArray, *, seq_len: int) -> IntArray:
    """Windows in one epoch of rows with ``num_tokens`` tokens: ``(T - 1) // L``, at least 1.

    A row of fewer than ``L + 1`` tokens has one window, which wraps around. Shapes ``(n,)``.
    """
    return np.maximum((num_tokens - 1) // seq_len, 1)


def tokens_left_over(num_tokens: IntArray, *, seq_len: int) -> IntArray:
    """Tokens of a row that the windows of one epoch leave out: the largest shift.

    Shapes ``(n,)``.
    """
    return (num_tokens - 1) % seq_len


def window_starts(windows: IntArray, shifts: IntArray, *, seq_len: int) -> IntArray:
    """Offset in its row of the first token of each window. Shapes ``(n,)``."""
    return windows * seq_len + shifts


def stream_keys(seed: int, split: str, corpus: str, places: Sequence[int | None]) -> list[int]:
    """Keys of rows of documents: 64-bit hashes of everything the order may depend on.

    Args:
        seed: Seed of the run.
        split: Name of the split.
        corpus: Name of the corpus.
        places: For each row, the place of its shard within the corpus; None: all shards together.
    """
    # Lengths keep two different lists of parts from making the same text.
    parts = "".join([f"{len(part.encode())}:{part}," for part in (f"{seed}", split, corpus)])
    of_corpus = hashlib.blake2b(parts.encode(), digest_size=8, person=b"blendtitan-1")
    keys: list[int] = []
    for place in places:
        row = "" if place is None else f"{place}"
        digest = of_corpus.copy()
        digest.update(f"{len(row)}:{row},".encode())
        keys.append(int.from_bytes(digest.digest(), "little"))
    return keys


def epoch_keys(keys: Bits, epochs: IntArray) -> Bits:
    """Key of each epoch of each row. Shapes ``(n,)``."""
    return mix64(keys ^ mix64((epochs.astype(np.uint64) + np.uint64(1)) * _EPOCH_STEP))


def permute(index: IntArray, size: IntArray, keys: Bits) -> IntArray:
    """Image of each ``index`` under the permutation of ``0 .. size - 1`` of its key.

    Args:
        index: Numbers from 0 to ``size - 1``. Shape ``(n,)``.
        size: Sizes, at least 1. Shape ``(n,)``.
        keys: From ``epoch_keys``. Shape ``(n,)``.

    Returns:
        Shape ``(n,)``. For one key and size, different indices have different images.
    """
    return walked(index, size, keys, _feistel)


def walked(
    index: IntArray,
    size: IntArray,
    keys: Bits,
    network: Callable[[Bits, Bits, Bits], Bits],
) -> IntArray:
    """Images under a network on whole bits, each sent through it until it is below ``size``."""
    result = index.astype(np.uint64)
    limit = size.astype(np.uint64)
    half_bits = _half_bits(limit)
    walking = np.arange(len(result))
    while len(walking):
        moved = network(result[walking], half_bits[walking], keys[walking])
        result[walking] = moved
        walking = walking[moved >= limit[walking]]
    return result.astype(np.int64)


def epoch_shifts(keys: Bits, epochs: IntArray, remainders: IntArray) -> IntArray:
    """Number of tokens by which an epoch shifts its windows: 0 to ``remainder``; 0 in epoch 0.

    Shapes ``(n,)``; ``keys`` are from ``epoch_keys``.
    """
    drawn = mix64(keys ^ _SHIFT_SALT) % (remainders.astype(np.uint64) + np.uint64(1))
    return np.where(epochs > 0, drawn.astype(np.int64), 0)


def mix64(values: Bits) -> Bits:
    """Mix of 64 bits in which every input bit reaches every output bit (splitmix64)."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _half_bits(size: Bits) -> Bits:
    """Half of the smallest even number of bits, at least 2, that holds ``0 .. size - 1``."""
    # frexp's exponent of m is the bit length of m, exact below 2^53.
    bits = np.frexp((size - np.uint64(1)).astype(np.float64))[1]
    return np.maximum((bits + 1) // 2, 1).astype(np.uint64)


def _feistel(values: Bits, half_bits: Bits, keys: Bits) -> Bits:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    # The high bits of the mix are its best, so they are used.
    down = np.uint64(64) - half_bits
    left, right = values >> half_bits, values & mask
    for salt in ROUND_SALTS:
        left, right = right, left ^ (mix64(right + (keys ^ salt)) >> down)
    return (left << half_bits) | right
