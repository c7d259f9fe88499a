"""The original's order, part by part, against the loops that it was written with."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.errors import ConfigError
from blendtitan.original import order
from blendtitan.original.order import (
    blend_of_corpora,
    corpus_samples,
    corpus_shuffle,
    greedy_blend,
    num_epochs,
    sample_cuts,
    samples_of_shards,
    sequence_cuts,
    shard_samples,
)

WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=8)
LENS = st.lists(st.integers(0, 12), min_size=1, max_size=30).filter(any)


@given(WEIGHTS, st.integers(1, 400))
def test_each_sample_goes_to_whoever_lacks_most(weights: list[float], num_samples: int) -> None:
    shares = np.array(weights) / np.sum(weights)
    parts, draws = greedy_blend(shares, num_samples)
    counts = [0] * len(weights)
    for k in range(num_samples):
        lacks = [
            float(share) * max(k, 1.0) - count for share, count in zip(shares, counts, strict=True)
        ]
        part = lacks.index(max(lacks))

        assert (parts[k], draws[k]) == (part, counts[part])
        counts[part] += 1


@given(LENS, st.integers(1, 20))
def test_a_sample_begins_with_the_last_token_of_the_one_before(
    lens: list[int], seq_len: int
) -> None:
    """Empty documents hold no token, so no sample begins in one."""
    tokens = [(read, i) for read, count in enumerate(lens) for i in range(count)]
    num_samples = (len(tokens) - 1) // seq_len
    reads, offsets = sample_cuts(np.array(lens, np.int32), seq_len=seq_len, num_samples=num_samples)

    cuts = list(zip(reads.tolist(), offsets.tolist(), strict=True))
    assert cuts == [tokens[s * seq_len] for s in range(num_samples + 1)]


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 100))
def test_epochs_are_as_few_as_hold_the_samples(tokens: int, seq_len: int, num_samples: int) -> None:
    epochs = 1
    while (epochs * tokens - 1) // seq_len < num_samples:
        epochs += 1

    assert num_epochs(tokens, seq_len=seq_len, num_samples=num_samples) == epochs


@given(LENS, st.integers(1, 10), st.integers(1, 60), st.integers(0, 5))
def test_a_shard_gives_samples_of_its_epochs_each_once(
    lens: list[int], seq_len: int, num_samples: int, seed: int
) -> None:
    """Against the reading of the documents one after the other, each in every epoch once."""
    first = 7
    given_ = shard_samples(
        np.array(lens, np.int32),
        first,
        seq_len=seq_len,
        num_samples=num_samples,
        seed=seed,
    )
    epochs = num_epochs(sum(lens), seq_len=seq_len, num_samples=num_samples)
    reads = given_.reads.tolist()
    row = [(read, i) for read in reads for i in range(lens[read - first])]
    samples = [row[s * seq_len : (s + 1) * seq_len + 1] for s in range((len(row) - 1) // seq_len)]

    assert sorted(reads) == sorted([*range(first, first + len(lens))] * epochs)
    assert len(set(given_.windows.tolist())) == len(given_.windows) == num_samples
    for k, window in enumerate(given_.windows):
        at = int(given_.first_reads[k])
        taken = reads[at : at + int(given_.num_reads[k])]
        tokens = [(read, i) for read in taken for i in range(lens[read - first])]
        offset = int(given_.offsets[k])

        assert tokens[offset : offset + seq_len + 1] == samples[window]


@pytest.mark.parametrize(("num_samples", "is_apart"), [(13, True), (17, True), (18, False)])
def test_the_last_epoch_is_separate_if_less_than_80_percent_of_it_is_needed(
    num_samples: int, is_apart: bool
) -> None:
    """Ten samples an epoch: from the eighth of its last on it is shuffled with the others."""
    lens = np.full(20, 5, np.int32)
    lens[-1] += 1
    samples = shard_samples(lens, 0, seq_len=10, num_samples=num_samples, seed=1)
    first_epoch = samples.reads[:20].tolist()

    assert (sorted(first_epoch) == list(range(20))) == is_apart
    assert (sorted(samples.windows[:10].tolist()) == list(range(10))) == is_apart


def test_every_shard_makes_half_a_percent_more_rounded_up() -> None:
    assert samples_of_shards([3.0, 1.0], 1000) == [754, 252]  # 753.75, 251.25
    assert samples_of_shards([0.25, 0.45, 0.3], 32) == [9, 15, 10]
    assert samples_of_shards([1.0], 0) == [0]


@pytest.mark.parametrize(
    ("num_sequences", "fractions", "cuts"),
    [
        (100, (0.98, 0.01, 0.01), [0, 98, 99, 100]),
        (10, (0.9, 0.05, 0.05), [0, 10, 10, 10]),
        (5, (0.5, 0.5, 0), [0, 3, 5, 5]),  # 2 and 2: train has what is left over
        (3, (0, 0.5, 0.5), [0, -1, 1, 3]),  # 2 and 2: train has nothing to give
    ],
)
def test_the_rounding_remainder_goes_to_train(
    num_sequences: int, fractions: tuple[float, float, float], cuts: list[int]
) -> None:
    assert sequence_cuts(num_sequences, fractions) == cuts


def test_shards_of_a_corpus_follow_one_another_or_are_blended() -> None:
    shards, samples = corpus_samples([3, 2], blend=False)
    blended, draws = corpus_samples([3, 2], blend=True)

    assert list(zip(shards, samples, strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert list(zip(blended, draws, strict=True)) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


def test_golden_shuffles() -> None:
    """NumPy promises that ``RandomState`` never changes."""
    samples = shard_samples(
        np.array([4, 2, 3, 5, 1], np.int32), 0, seq_len=4, num_samples=5, seed=1234
    )

    assert corpus_shuffle(6, shuffle=False, seed=1234).tolist() == [0, 1, 2, 3, 4, 5]
    assert corpus_shuffle(6, shuffle=True, seed=1234).tolist() == [2, 1, 5, 0, 4, 3]
    assert samples.reads.tolist() == [2, 2, 4, 1, 0, 3, 4, 0, 1, 3]
    assert samples.windows.tolist() == [6, 4, 0, 5, 3]


def test_corpora_are_blended_by_the_samples_they_have() -> None:
    corpora, draws = blend_of_corpora([4, 2, 1])

    assert np.bincount(corpora).tolist() == [4, 2, 1]
    assert corpora.tolist()[:4] == [0, 1, 2, 0]
    assert draws[corpora == 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("blend", [blend_of_corpora, lambda n: corpus_samples(n, blend=True)])
@given(num_samples=st.lists(st.integers(1, 500), min_size=1, max_size=9))
def test_a_blend_takes_every_sample_once(
    blend: Callable[[list[int]], tuple[Any, Any]], num_samples: list[int]
) -> None:
    """The last ones too: no table asks for a sample that is not there."""
    parts, draws = blend(num_samples)
    for part, count in enumerate(num_samples):
        assert draws[parts == part].tolist() == list(range(count))


def test_without_numba_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    order._compiled.cache_clear()

    with pytest.raises(ConfigError, match=r"needs numba, .*pip install 'blendtitan\[original\]'"):
        greedy_blend(np.array([1.0]), 1)
