"""Balance: a step keeps its rows, every rank computes the same deal, and none waits longer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.order.balance import balanced, duration, unbalanced, waiting

sizes = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4))
kinds = st.sampled_from([3, 10**3, 10**12])


def random_costs(shape: tuple[int, int, int], most: int, seed: int) -> np.ndarray:
    """Costs with few or no ties, most of them small, as those of documents are."""
    spread = np.random.default_rng(seed).random(int(np.prod(shape))) ** 4
    return (spread * most).astype(np.int64)


@given(sizes, kinds, st.integers(0, 99))
def test_a_step_keeps_its_rows_and_never_lasts_longer(
    shape: tuple[int, int, int], most: int, seed: int
) -> None:
    _, ranks, micro_batch = shape
    costs = random_costs(shape, most, seed)
    deal = balanced(costs, ranks=ranks, micro_batch=micro_batch)
    plain = unbalanced(len(costs), ranks=ranks, micro_batch=micro_batch)

    assert deal.shape == shape
    assert sorted(deal.ravel().tolist()) == list(range(len(costs)))
    assert duration(costs, deal) <= duration(costs, plain)


@given(sizes, kinds, st.integers(0, 99), st.integers(0, 10**9))
def test_a_cost_that_all_rows_share_changes_nothing(
    shape: tuple[int, int, int], most: int, seed: int, shared: int
) -> None:
    """So the deal does not depend on the model, whose matrices cost the same in every row."""
    _, ranks, micro_batch = shape
    costs = random_costs(shape, most, seed)
    deal = balanced(costs, ranks=ranks, micro_batch=micro_batch)

    assert np.array_equal(deal, balanced(costs + shared, ranks=ranks, micro_batch=micro_batch))


@given(sizes.filter(lambda shape: shape[2] == 1), kinds, st.integers(0, 99))
def test_with_one_row_at_a_time_no_other_deal_is_shorter(
    shape: tuple[int, int, int], most: int, seed: int
) -> None:
    """The sum of the maxima of groups is lowest where each group holds neighbours by cost."""
    costs = random_costs(shape, most, seed)
    deal = balanced(costs, ranks=shape[1], micro_batch=1)

    assert duration(costs, deal) == np.sort(costs)[:: -shape[1]].sum()


def test_rows_of_similar_cost_run_together_and_totals_stay_level() -> None:
    """Worked by hand: two ranks, three micro batches of one row."""
    costs = np.array([9, 1, 2, 7, 8, 2])
    deal = balanced(costs, ranks=2, micro_batch=1)

    assert deal.tolist() == [[[0], [4]], [[2], [3]], [[5], [1]]]
    assert costs[deal].sum(axis=(0, 2)).tolist() == [13, 16]
    assert duration(costs, deal) == 9 + 7 + 2
    assert waiting(costs, deal) == pytest.approx(1 - 29 / 36)


def test_each_round_gives_the_rank_with_the_lowest_total_the_most_expensive_row() -> None:
    """Two ranks, one micro batch of two rows; the rank that took 5 takes 4 as well."""
    costs = np.array([9, 5, 4, 1])
    deal = balanced(costs, ranks=2, micro_batch=2)

    assert deal.tolist() == [[[0, 3], [1, 2]]]


def test_a_step_that_would_last_longer_stays_as_it_is() -> None:
    """The greedy deal of two rows at a time is not always the best one."""
    found = 0
    for seed in range(300):
        costs = random_costs((2, 2, 2), 10**6, seed)
        deal = balanced(costs, ranks=2, micro_batch=2)
        plain = unbalanced(8, ranks=2, micro_batch=2)
        found += np.array_equal(deal, plain)
        assert duration(costs, deal) <= duration(costs, plain)

    assert found > 0
