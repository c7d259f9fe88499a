"""The order of the original BlendCorpus, which is Megatron's GPT dataset of 2022.

For ``n`` samples, each shard shuffles its documents over as many epochs as ``n`` samples
take, cuts them into samples of ``seq_len + 1`` tokens and shuffles these. A corpus joins the
samples of its shards, one after the other or blended, and may shuffle them once more. The blend
joins the corpora. Every step depends on the number of samples: this order has a horizon.

The original's documents are called *sequences* here: entries of an ``.idx`` file.

Source: ``blendcorpus/data/gpt_dataset.py``, ``blendable_dataset.py``, ``dataset_utils.py`` and
``helpers.cpp`` at commit ac485ec, including the code from Megatron-DeepSpeed.

Loops whose steps depend on earlier steps are compiled by numba, which is imported at the first
call, because no other order needs it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import requires_extra

IntArray = NDArray[np.int64]


def greedy_blend(
    weights: NDArray[np.float64], num_samples: int
) -> tuple[NDArray[np.int32], IntArray]:
    """Give each sample to the part that lacks most of its share so far; ties go to the first.

    Args:
        weights: Share of each part. Shape ``(num_parts,)``.
        num_samples: Samples to give away.

    Returns:
        ``(part, draw)`` of each sample, shapes ``(num_samples,)``: it is the part's draw ``draw``.

    Source: ``build_blending_indices`` in Megatron's ``helpers.cpp``. The lack of a part is
    two rounded operations in doubles, a product and a difference, and never a fused one.
    """
    parts = np.empty(num_samples, np.int32)
    draws = np.empty(num_samples, np.int64)
    _compiled(_greedy_blend)(weights, parts, draws)
    return parts, draws


def sample_cuts(
    lens: NDArray[np.integer[Any]], *, seq_len: int, num_samples: int
) -> tuple[IntArray, IntArray]:
    """Cut the tokens of reads into samples of ``seq_len + 1``; neighbours share one.

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


Number = TypeVar("Number", bound=np.integer[Any])

_SURPLUS = 1.005
"""Samples made per requested sample, so that no shard runs short while blending."""

_WHOLE_LAST_EPOCH = 0.80
"""Least fraction of its samples at which the last epoch is shuffled with the others."""


def samples_of_shards(weights: Sequence[float], num_samples: int) -> list[int]:
    """Samples that each shard makes for a blend of ``num_samples``.

    The order of the floating-point operations is the original's, because it affects rounding.
    """
    total = 0.0
    for weight in weights:
        total += weight
    return [math.ceil(num_samples * (weight / total) * _SURPLUS) for weight in weights]


def sequence_cuts(num_sequences: int, fractions: Sequence[float]) -> list[int]:
    """Cut the sequences of one shard into train, valid and test: four numbers from 0 on.

    Unlike in ``document_cuts``, the excess of rounding always goes to train, even if train is
    empty: then a cut can be out of place, and the original fails or leaves sequences out.
    """
    sizes = [round(fraction * num_sequences) for fraction in fractions]
    excess = sum(sizes) - num_sequences
    return [0, *(cut - excess for cut in accumulate(sizes))]


@dataclass(frozen=True, slots=True)
class ShardSamples:
    """The samples of one shard in one split, in order."""

    reads: NDArray[np.int32]
    """Number of each sequence that is read, in reading order. Shape ``(num_reads,)``."""
    windows: IntArray
    """Number of each sample in reading order: it starts ``window * seq_len`` tokens into the
    reads. Shape ``(num_samples,)``."""
    first_reads: IntArray
    """Read that holds the first token of each sample. Shape ``(num_samples,)``."""
    offsets: IntArray
    """Offset of that token in its sequence. Shape ``(num_samples,)``."""
    num_reads: IntArray
    """Reads that each sample takes. Shape ``(num_samples,)``."""


def shard_samples(
    lens: NDArray[np.int32], first: int, *, seq_len: int, num_samples: int, seed: int
) -> ShardSamples:
    """The samples of a shard, at least ``num_samples``.

    Args:
        lens: Tokens of each sequence of the split; there is at least one. Shape ``(n,)``.
        first: Number of the first of these sequences.
        seq_len: Length of a model input, in tokens.
        num_samples: Requested samples. More are made and shuffled, as many as the epochs hold.
        seed: Seed of the order.
    """
    rng = np.random.RandomState(seed)
    tokens = int(lens.sum(dtype=np.int64))
    epochs = num_epochs(tokens, seq_len=seq_len, num_samples=num_samples)
    apart = _last_epoch_is_apart(tokens, epochs, seq_len=seq_len, num_samples=num_samples)
    ids = np.arange(len(lens), dtype=np.int32)
    if apart:
        parts = [_shuffled(np.tile(ids, epochs - 1), rng), _shuffled(ids.copy(), rng)]
        reads = np.concatenate(parts)
    else:
        reads = _shuffled(np.tile(ids, epochs), rng)
    made = (epochs * tokens - 1) // seq_len
    together = ((epochs - 1) * tokens - 1) // seq_len if apart else made
    windows = np.concatenate(
        [_shuffled(np.arange(together), rng), _shuffled(np.arange(together, made), rng)]
    )[:num_samples]
    cut_reads, cut_offsets = sample_cuts(lens[reads], seq_len=seq_len, num_samples=made)
    first_reads = cut_reads[windows]
    return ShardSamples(
        reads=reads + np.int32(first),
        windows=windows,
        first_reads=first_reads,
        offsets=cut_offsets[windows],
        num_reads=cut_reads[windows + 1] - first_reads + 1,
    )


def num_epochs(tokens: int, *, seq_len: int, num_samples: int) -> int:
    """Passes over ``tokens`` tokens that hold ``num_samples`` samples: at least one."""
    # The samples share their border tokens; the last one needs one token more.
    return max(1, -(-(num_samples * seq_len + 1) // tokens))


def _last_epoch_is_apart(tokens: int, epochs: int, *, seq_len: int, num_samples: int) -> bool:
    if epochs == 1:
        return False
    before = ((epochs - 1) * tokens - 1) // seq_len
    return num_samples - before < int(_WHOLE_LAST_EPOCH * ((tokens - 1) // seq_len))


def _shuffled(array: NDArray[Number], rng: np.random.RandomState) -> NDArray[Number]:
    rng.shuffle(array)
    return array


def corpus_samples(
    num_samples: Sequence[int], *, blend: bool
) -> tuple[NDArray[np.int32], IntArray]:
    """``(shard, sample of it)`` of each sample of a corpus, before they are shuffled.

    Args:
        num_samples: Samples of each shard.
        blend: Blend the shards in proportion to these; else one comes after the other.

    Returns:
        Two arrays of shape ``(sum of num_samples,)``; ``shard`` counts within the corpus. Each
        sample comes once: a part that gets a sample lacks part of its share, so no part ever
        exceeds its share by a whole sample, and at the end each has exactly its share.
    """
    counts = np.array(num_samples, np.int64)
    if blend:
        return _whole_blend(counts / counts.sum(), counts)
    shards = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return shards, np.arange(len(shards)) - (np.cumsum(counts) - counts)[shards]


def corpus_shuffle(num_samples: int, *, shuffle: bool, seed: int) -> IntArray:
    """The joined sample that each draw of a corpus reads. Shape ``(num_samples,)``."""
    index = np.arange(num_samples)
    # A generator of its own: it repeats the numbers that the shards began with.
    return _shuffled(index, np.random.RandomState(seed)) if shuffle else index


def blend_of_corpora(num_samples: Sequence[int]) -> tuple[NDArray[np.int32], IntArray]:
    """``(corpus, draw)`` of each slot, from the number of samples that each corpus has."""
    counts = np.array(num_samples, np.int64)
    weights = counts / counts.sum()
    # Divide them once more by their sum, because rounding may have moved it away from 1.
    return _whole_blend(weights / weights.sum(), counts)


def _whole_blend(
    weights: NDArray[np.float64], counts: IntArray
) -> tuple[NDArray[np.int32], IntArray]:
    parts, draws = greedy_blend(weights, int(counts.sum()))
    assert np.array_equal(np.bincount(parts, minlength=len(counts)), counts)
    return parts, draws
