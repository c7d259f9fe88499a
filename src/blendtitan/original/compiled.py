"""The loops of the original's order in which each step needs the one before, compiled by numba.

numba is imported when the first of them is called: no other order needs it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import requires_extra

IntArray = NDArray[np.int64]


def greedy_blend(
    weights: NDArray[np.float64], num_samples: int
) -> tuple[NDArray[np.int32], IntArray]:
    """Give each sample to the part that lacks most of its share so far, the first of equal ones.

    Args:
        weights: Share of each part. Shape ``(num_parts,)``.
        num_samples: Samples to give away.

    Returns:
        ``(part, draw)`` of each sample, shapes ``(num_samples,)``: it is the part's draw ``draw``.

    Source: ``build_blending_indices`` in Megatron's ``helpers.cpp``. What a part lacks is compared
    as two rounded operations in doubles, a product and a difference, and never as a fused one.
    """
    parts = np.empty(num_samples, np.int32)
    draws = np.empty(num_samples, np.int64)
    _compiled(_greedy_blend)(weights, parts, draws)
    return parts, draws


def sample_cuts(
    lens: NDArray[np.integer[Any]], *, seq_len: int, num_samples: int
) -> tuple[IntArray, IntArray]:
    """Cut what is read into samples of ``seq_len + 1`` tokens; neighbours share one.

    Args:
        lens: Tokens of each read, more than ``num_samples * seq_len`` together.
        seq_len: Length of a model input, in tokens.
        num_samples: Samples to cut.

    Returns:
        ``(read, offset)``, shapes ``(num_samples + 1,)``: sample ``s`` starts ``offset[s]`` tokens
        into read ``read[s]``, and its last token is where entry ``s + 1`` points.

    Source: ``build_sample_idx`` in Megatron's ``helpers.cpp``.
    """
    reads = np.empty(num_samples + 1, np.int64)
    offsets = np.empty(num_samples + 1, np.int64)
    _compiled(_sample_cuts)(lens, seq_len, reads, offsets)
    return reads, offsets


def _greedy_blend(weights: NDArray[np.float64], parts: NDArray[np.int32], draws: IntArray) -> None:
    counts = np.zeros(len(weights), np.int64)
    for sample in range(len(parts)):
        given = max(float(sample), 1.0)
        part = 0
        most = weights[0] * given - counts[0]
        for i in range(1, len(weights)):
            lack = weights[i] * given - counts[i]
            if lack > most:
                most = lack
                part = i
        parts[sample] = part
        draws[sample] = counts[part]
        counts[part] += 1


def _sample_cuts(
    lens: NDArray[np.integer[Any]], seq_len: int, reads: IntArray, offsets: IntArray
) -> None:
    read = 0
    start = 0
    for sample in range(len(reads)):
        first_token = sample * seq_len
        while start + lens[read] <= first_token:
            start += lens[read]
            read += 1
        reads[sample] = read
        offsets[sample] = first_token - start


@cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    with requires_extra("original", 'order = "blendcorpus"'):
        from numba import njit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    return njit(nogil=True)(function)  # pyright: ignore[reportUnknownVariableType]
