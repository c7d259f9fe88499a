"""Blends are points of a simplex, whatever they are made of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.errors import ConfigError
from blendtitan.mixture.blends import (
    Shares,
    SweepConfig,
    blends_of,
    grid,
    grid_size,
    normalised,
    one_at_a_time,
)

weights = st.lists(st.floats(0.01, 100), min_size=2, max_size=6)
ROUNDING = 1e-11


def base_of(weights: list[float]) -> Shares:
    (base,) = normalised(np.array([weights]))
    return base


def names(base: Shares) -> list[str]:
    return [f"corpus{number}" for number in range(len(base))]


def check_simplex(blends: Shares, least: float = 0.0) -> None:
    assert blends.min() >= least - ROUNDING
    assert all(math.isclose(math.fsum(row), 1, abs_tol=2e-16) for row in blends)


@given(st.integers(2, 5), st.integers(1, 6))
def test_a_grid_has_every_point_once(num_corpora: int, levels: int) -> None:
    counts = np.rint(grid(num_corpora, levels) * levels).astype(int)
    expected = {point for point in np.ndindex(*[levels + 1] * num_corpora) if sum(point) == levels}

    assert {*map(tuple, counts.tolist())} == expected
    assert len(counts) == len(expected) == grid_size(num_corpora, levels)


@given(weights, st.integers(1, 4), st.floats(0, 0.15))
def test_a_grid_is_a_part_of_the_simplex(weights: list[float], levels: int, least: float) -> None:
    base = base_of(weights)
    config = SweepConfig(method="grid", levels=levels, min_share=least)

    check_simplex(blends_of(config, names(base), base), least)


@given(weights, st.integers(1, 20), st.none() | st.floats(0.01, 1000), st.integers(0, 9))
def test_random_blends(
    weights: list[float], runs: int, concentration: float | None, seed: int
) -> None:
    """They are on the simplex, the same each time, and go on where fewer of them end."""
    base = base_of(weights)

    def drawn(runs: int) -> Shares:
        config = SweepConfig(method="dirichlet", runs=runs, concentration=concentration, seed=seed)
        return blends_of(config, names(base), base)

    check_simplex(drawn(runs))
    assert drawn(runs).shape == (runs, len(base))
    assert np.array_equal(drawn(runs), drawn(runs))
    assert np.array_equal(drawn(runs + 3)[:runs], drawn(runs))


@given(weights, st.lists(st.floats(0, 1).filter(lambda x: x != 1), min_size=1, max_size=3))
def test_one_corpus_at_a_time(weights: list[float], factors: list[float]) -> None:
    """The base comes first; the corpora that are not changed keep their proportions."""
    base = base_of(weights)
    blends = one_at_a_time(base, list(range(len(base))), factors)

    check_simplex(normalised(blends))
    assert np.array_equal(blends[0], base)
    changed = [(corpus, factor) for corpus in range(len(base)) for factor in factors]
    for row, (corpus, factor) in zip(blends[1:], changed, strict=True):
        others = np.delete(row, corpus) / np.delete(base, corpus)
        assert row[corpus] == factor * base[corpus]
        assert np.allclose(others, others[0])


def test_one_corpus_at_a_time_by_hand() -> None:
    config = SweepConfig(method="one-at-a-time", factors=(0.0, 2.0), corpora=("web",))
    blends = blends_of(config, ["books", "code", "web"], np.array([0.4, 0.2, 0.4]))

    assert blends == pytest.approx(
        np.array([[0.4, 0.2, 0.4], [2 / 3, 1 / 3, 0], [0.4 / 3, 0.2 / 3, 0.8]])
    )


def test_corpora_that_are_not_named_keep_their_shares() -> None:
    config = SweepConfig(method="grid", levels=2, corpora=("books", "web"))
    blends = blends_of(config, ["books", "code", "web"], np.array([0.4, 0.2, 0.4]))

    assert blends.tolist() == [[0, 0.2, 0.8], [0.4, 0.2, 0.4], [0.8, 0.2, 0]]


def test_concentrated_random_blends_gather_around_the_base() -> None:
    base = np.array([0.5, 0.3, 0.2])
    config = SweepConfig(
        method="dirichlet", runs=400, concentration=1000.0, min_share=0.1, corpora=()
    )
    blends = blends_of(config, names(base), base)

    check_simplex(blends, 0.1)
    assert blends.mean(0) == pytest.approx(base, abs=0.01)
    assert abs(blends - base).max() < 0.1


def test_some_points_of_a_grid_that_has_too_many() -> None:
    base = base_of([1.0] * 10)
    chosen = blends_of(SweepConfig(method="grid", levels=5, runs=7), names(base), base)

    check_simplex(chosen)
    assert len({*map(tuple, chosen.tolist())}) == 7
    with pytest.raises(ConfigError, match=r"the grid of 10 corpora has 2,002 points.+--runs"):
        blends_of(SweepConfig(method="grid", levels=5), names(base), base)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "random"}, "--method is 'random', expected one of grid, dirichlet, one-"),
        ({"method": "grid"}, "--method grid needs --levels"),
        ({"method": "grid", "levels": 0}, "--levels is 0, expected a whole number of at least 1"),
        (
            {"method": "grid", "levels": 2, "runs": 99},
            "--runs is 99, expected at most the grid's 6",
        ),
        ({"method": "dirichlet"}, "--method dirichlet needs --runs"),
        ({"method": "dirichlet", "runs": 2, "levels": 2}, "--levels does not belong to --method d"),
        ({"method": "dirichlet", "runs": 2, "concentration": 0.0}, "--concentration is 0.0"),
        (
            {"method": "dirichlet", "runs": 2, "concentration": 9.0, "min_share": 0.25},
            "--min-share is 0.25, more than a corpus of the base has",
        ),
        ({"method": "dirichlet", "runs": 2, "min_share": 0.4}, "less than 0.333333"),
        ({"method": "one-at-a-time", "factors": (1.0,)}, "--factors: found 1.0"),
        ({"method": "one-at-a-time", "factors": (2.5,)}, "2.5 times the share of 'corpus0', 0.5"),
        ({"method": "grid", "levels": 2, "corpora": ("corpus7",)}, "Did you mean 'corpus2'?"),
        (
            {"method": "grid", "levels": 2, "corpora": ("corpus0",)},
            "1 corpus to vary, expected at least two",
        ),
    ],
)
def test_settings_that_give_no_blends(settings: dict[str, object], message: str) -> None:
    base = np.array([0.5, 0.3, 0.2])

    with pytest.raises(ConfigError) as raised:
        blends_of(SweepConfig(**settings), names(base), base)  # pyright: ignore
    assert message in str(raised.value)
