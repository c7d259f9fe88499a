"""Blends: exact shares at every prefix, any slot without a table."""

import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.order.blend import BlendTrees, shares_of, total_weight

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60)

GOLDEN_LEAVES = [0, 2, 0, 1, 0, 2, 0, 1, 0, 2, 0, 2, 0, 1, 0, 2, 0, 1, 0, 2]
GOLDEN_DRAWS = [0, 0, 1, 0, 2, 1, 3, 1, 4, 2, 5, 3, 6, 2, 7, 4, 8, 3, 9, 5]


def leaves(weights: list[float], slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return BlendTrees.build([weights]).leaves(np.zeros(len(slots), np.int64), slots)


def leaf_by_definition(weights: list[float], slot: int) -> tuple[int, int]:
    """The definition in words, one slot at a time."""
    heap = [(weight, i, (i,)) for i, weight in enumerate(weights)]
    heapq.heapify(heap)
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a[0] + b[0], 2 * len(weights) - len(heap) - 1, (a, b)))
    node, k = heap[0], slot
    while len(node[2]) == 2:
        light, heavy = node[2]
        p = light[0] / (light[0] + heavy[0])
        before, after = math.floor(k * p + 0.5), math.floor((k + 1) * p + 0.5)
        node, k = (light, before) if after > before else (heavy, k - before)
    return node[1], k


@given(weights=WEIGHTS, slot=st.integers(0, 10**12))
def test_a_slot_is_found_as_the_definition_says(weights: list[float], slot: int) -> None:
    leaf, draw = leaves(weights, np.array([slot]))

    assert (leaf[0], draw[0]) == leaf_by_definition(weights, slot)


@given(weights=WEIGHTS)
def test_the_draws_of_each_corpus_count_up_from_0(weights: list[float]) -> None:
    leaf, draw = leaves(weights, np.arange(500))
    for corpus in range(len(weights)):
        own = draw[leaf == corpus]

        assert own.tolist() == list(range(len(own)))


@given(weights=WEIGHTS, start=st.integers(0, 10**12))
def test_random_access_equals_sequential_access(weights: list[float], start: int) -> None:
    block = leaves(weights, np.arange(start, start + 50))
    for i in (49, 0, 25):
        alone = leaves(weights, np.array([start + i]))

        assert (alone[0][0], alone[1][0]) == (block[0][i], block[1][i])


def skewed(n: int) -> list[float]:
    return [1000.0] + [1.0] * (n - 1)


@pytest.mark.parametrize("n", [2, 3, 10, 200, 2000])
@pytest.mark.parametrize("kind", ["equal", "random", "one large", "geometric"])
def test_shares_are_met_within_two_slots_at_every_prefix(n: int, kind: str) -> None:
    weights = {
        "equal": [1.0] * n,
        "random": np.random.default_rng(n).exponential(size=n).tolist(),
        "one large": skewed(n),
        "geometric": [0.97**i for i in range(n)],
    }[kind]
    num_slots = 4000
    leaf, _ = leaves(weights, np.arange(num_slots))
    drawn = np.zeros((num_slots + 1, n), np.int32)
    drawn[np.arange(1, num_slots + 1), leaf] = 1
    drawn = np.cumsum(drawn, axis=0, dtype=np.int32)
    due = np.arange(num_slots + 1)[:, None] * (np.array(weights) / sum(weights))

    assert np.abs(drawn - due).max() < 2


@given(weights=WEIGHTS, slot=st.integers(10**11, 10**14))
def test_shares_are_met_within_two_slots_far_into_the_run(weights: list[float], slot: int) -> None:
    drawn = BlendTrees.build([weights]).draws_before(0, slot)
    due = [slot * (weight / math.fsum(weights)) for weight in weights]

    assert np.abs(drawn - due).max() < 2.1


@given(weights=WEIGHTS, slot=st.integers(0, 2000))
def test_draws_before_a_slot_are_counted_without_walking_there(
    weights: list[float], slot: int
) -> None:
    leaf, _ = leaves(weights, np.arange(slot))
    counted = np.bincount(leaf, minlength=len(weights))

    assert BlendTrees.build([weights]).draws_before(0, slot).tolist() == counted.tolist()


def test_trees_side_by_side_do_not_disturb_one_another() -> None:
    trees = BlendTrees.build([[1.0, 2.0], [5.0], [1.0, 1.0, 1.0]])
    slots = np.arange(9)
    first, _ = trees.leaves(np.zeros(9, np.int64), slots)
    second, draws = trees.leaves(np.ones(9, np.int64), slots)
    third, _ = trees.leaves(np.full(9, 2), slots)

    assert first.tolist() == leaves([1.0, 2.0], slots)[0].tolist()
    assert set(second.tolist()) == {2}
    assert draws.tolist() == slots.tolist()
    assert third.tolist() == (leaves([1.0, 1.0, 1.0], slots)[0] + 3).tolist()


def test_golden_blend() -> None:
    """The order is a public interface: only a new order version may change these."""
    leaf, draw = leaves([0.5, 0.2, 0.3], np.arange(20))

    assert leaf.tolist() == GOLDEN_LEAVES
    assert draw.tolist() == GOLDEN_DRAWS


def test_weights_are_added_from_left_to_right() -> None:
    """As Python 3.11 does. ``sum`` has compensated its rounding since 3.12."""
    assert total_weight([0.1] * 10) == 0.9999999999999999
    assert shares_of({"a": 0.1, "b": 0.2, "c": 0.3})["a"] == 0.1 / ((0.1 + 0.2) + 0.3)
