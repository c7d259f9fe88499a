"""Permutations: every index exactly once, in an order that looks drawn by lot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.order.epoch import epoch_keys, epoch_shifts, mix64, permute, stream_keys

GOLDEN_10 = [5, 8, 6, 2, 3, 9, 0, 7, 4, 1]
GOLDEN_17 = [13, 5, 15, 6, 4, 16, 7, 10, 2, 8, 1, 11, 0, 9, 14, 12, 3]
GOLDEN_KEY = 0xB2DBAE0BB2B0516A
GOLDEN_EPOCH_KEYS = [527414364520597371, 3994923134711240821, 6437111056781557479]


def stream_key(seed: int, split: str, corpus: str, place: int | None = None) -> int:
    return stream_keys(seed, split, corpus, [place])[0]


def permutation(size: int, key: int) -> np.ndarray:
    keys = np.full(size, key, np.uint64)
    return permute(np.arange(size), np.full(size, size), keys)


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_every_index_has_exactly_one_image(size: int, key: int) -> None:
    assert sorted(permutation(size, key)) == list(range(size))


@given(size=st.integers(1, 10**15), key=st.integers(0, 2**64 - 1), data=st.data())
def test_large_permutations_stay_in_range_and_never_collide(
    size: int, key: int, data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=50, unique=True))
    n = len(index)
    images = permute(np.array(index), np.full(n, size), np.full(n, key, np.uint64))

    assert len(set(images.tolist())) == n
    assert images.min() >= 0
    assert images.max() < size


def test_each_element_is_computed_with_its_own_size_and_key() -> None:
    """One call serves samples of many corpora and epochs, and gives what single calls give."""
    sizes, keys = np.array([10, 1000, 7, 1]), np.array([1, 2, 3, 4], np.uint64)
    together = permute(np.array([3, 999, 0, 0]), sizes, keys)
    alone = [permutation(10, 1)[3], permutation(1000, 2)[999], permutation(7, 3)[0], 0]

    assert together.tolist() == alone


def test_golden_permutations() -> None:
    """The order is a public interface: only a new order version may change these."""
    assert permutation(10, 1).tolist() == GOLDEN_10
    assert permutation(17, 2**63).tolist() == GOLDEN_17


def test_golden_keys() -> None:
    key = stream_key(1234, "train", "web", 0)
    keys = epoch_keys(np.full(3, key, np.uint64), np.array([0, 1, 2]))

    assert key == GOLDEN_KEY
    assert keys.tolist() == GOLDEN_EPOCH_KEYS


@pytest.mark.parametrize(
    "other",
    [
        (1, "valid", "web", 0),
        (2, "train", "web", 0),
        (1, "train", "code", 0),
        (1, "train", "web", 1),
        (1, "train", "web", None),
    ],
)
def test_keys_differ_with_seed_split_corpus_and_place(other: tuple) -> None:
    assert stream_key(*other) != stream_key(1, "train", "web", 0)


def test_names_cannot_be_mistaken_for_one_another() -> None:
    """A corpus whose name holds a separator gets no other corpus's key."""
    assert stream_key(1, "train", "a,1:b", None) != stream_key(1, "train", "a", 1)


def test_every_output_bit_depends_on_every_input_bit_of_the_mix() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 2000, np.uint64)
    for bit in range(64):
        changed = mix64(values) ^ mix64(values ^ np.uint64(1 << bit))
        flips = [(changed >> np.uint64(b) & np.uint64(1)).mean() for b in range(64)]

        assert min(flips) > 0.4
        assert max(flips) < 0.6


@pytest.mark.parametrize("size", [1000, 4096, 5000])
def test_neighbouring_draws_are_as_unrelated_as_random_ones(size: int) -> None:
    """Runs kept together by a weak shuffle would show as strides that occur too often."""
    permutations = [permutation(size, key) for key in range(200)]
    for stride in (1, 2, 16, 64):
        steps = np.concatenate([np.diff(images[::stride]) % size for images in permutations])
        counts = np.bincount(steps, minlength=size)[1:]
        expected = len(steps) / (size - 1)

        assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1]) < 6 / np.sqrt(len(steps))
        assert counts.max() < expected + 7 * np.sqrt(expected) + 7


@pytest.mark.parametrize("size", [64, 100, 1000])
def test_every_place_is_equally_likely_over_the_keys(size: int) -> None:
    """A chi-square test for the image of some indices over 4,000 epochs."""
    epochs = np.arange(4000)
    keys = epoch_keys(np.full(4000, stream_key(1, "train", "web")), epochs)
    for index in (0, 1, size // 2, size - 1):
        images = permute(np.full(4000, index), np.full(4000, size), keys)
        counts = np.bincount(images, minlength=size)
        chi2 = ((counts - 4000 / size) ** 2 / (4000 / size)).sum()

        # Five standard deviations of a chi-square with size - 1 degrees of freedom.
        assert chi2 < size - 1 + 5 * np.sqrt(2 * size)


def test_bits_of_the_image_are_balanced_and_independent_of_the_index() -> None:
    size = 1 << 12
    bits = (permutation(size, 99)[:, None] >> np.arange(12)) & 1
    index_bits = (np.arange(size)[:, None] >> np.arange(12)) & 1
    correlation = np.corrcoef(bits.T, index_bits.T)[:12, 12:]

    assert np.abs(correlation).max() < 6 / np.sqrt(size)


def test_epochs_are_shifted_within_the_tokens_left_over_but_not_the_first() -> None:
    epochs = np.repeat([0, 1], 500)
    keys = mix64(np.arange(1000, dtype=np.uint64))
    shifts = epoch_shifts(keys, epochs, np.full(1000, 4))

    assert set(shifts[:500]) == {0}
    assert set(shifts[500:]) == {0, 1, 2, 3, 4}
