"""The inverse permutation of an epoch: the place at which a window is visited."""

import numpy as np

from blendtitan.order.epoch import ROUND_SALTS, Bits, IntArray, mix64, walked


def unpermute(image: IntArray, size: IntArray, keys: Bits) -> IntArray:
    """The index whose image under ``permute`` is each of ``image``. Shapes ``(n,)``."""
    return walked(image, size, keys, _feistel_backwards)


def _feistel_backwards(values: Bits, half_bits: Bits, keys: Bits) -> Bits:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    down = np.uint64(64) - half_bits
    left, right = values >> half_bits, values & mask
    for salt in ROUND_SALTS[::-1]:
        left, right = right ^ (mix64(left + (keys ^ salt)) >> down), left
    return (left << half_bits) | right
