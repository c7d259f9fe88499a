"""The blends of a sweep: a grid, random ones, or one corpus at a time.

A blend is a point of a simplex: shares of at least 0 that sum to 1.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError

Shares = NDArray[np.float64]
"""A row for each blend, a column for each corpus."""

METHODS: Mapping[str, tuple[str, ...]] = {
    "grid": ("levels", "runs", "min_share"),
    "dirichlet": ("runs", "concentration", "min_share"),
    "one-at-a-time": ("factors",),
}
"""The settings that each method takes; the first one is required."""

MAX_GRID = 1000
"""Largest grid without ``runs``: each point is a training run."""

_MAX_LISTED = 1_000_000
_DECIMALS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """The blends of a sweep. None: not given."""

    method: str
    """``grid``, ``dirichlet`` or ``one-at-a-time``."""
    corpora: tuple[str, ...] = ()
    """The corpora whose shares change; their sum stays. Empty: all."""
    runs: int | None = None
    """Number of blends to draw, or of the grid's points to use."""
    seed: int = 0
    """Seed of the random draw."""
    levels: int | None = None
    """The shares of a grid are multiples of ``1 / levels``."""
    concentration: float | None = None
    """Larger values draw blends nearer to the base. None: uniform over all blends."""
    factors: tuple[float, ...] | None = None
    """Factors for the share of one corpus at a time."""
    min_share: float | None = None
    """The least share of a corpus. None: 0, which excludes it."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"--method is {self.method!r}, expected one of {', '.join(METHODS)}")
        for name in sorted(set(chain(*METHODS.values())) - set(METHODS[self.method])):
            if getattr(self, name) is not None:
                raise ConfigError(f"{_option(name)} does not belong to --method {self.method}")
        needed = METHODS[self.method][0]
        if getattr(self, needed) is None:
            raise ConfigError(f"--method {self.method} needs {_option(needed)}")
        for name in ("levels", "runs"):
            if getattr(self, name) is not None:
                check_at_least(_option(name), getattr(self, name), 1)
        check_at_least("--seed", self.seed, 0)
        if self.concentration is not None and not 0 < self.concentration < math.inf:
            raise ConfigError(
                f"--concentration is {self.concentration}, expected a finite number above 0"
            )
        for factor in self.factors or ():
            if not (0 <= factor < math.inf) or factor == 1:
                raise ConfigError(
                    f"--factors: found {factor}, expected a finite number of at least 0 other than "
                    f"1, which is the base"
                )


def blends_of(config: SweepConfig, corpora: Sequence[str], base: Shares) -> Shares:
    """The blends of a sweep.

    Returns:
        Shape ``(num_blends, num_corpora)``.

    Raises:
        ConfigError: A corpus is unknown, or no such blends can be made from this base.
    """
    varied = _numbers(config.corpora, corpora)
    if config.method == "one-at-a-time":
        factors = list(config.factors or ())
        _check_factors(factors, corpora, base, varied)
        return normalised(one_at_a_time(base, varied, factors))
    if len(varied) < 2:
        raise ConfigError(
            f"--method {config.method}: found {len(varied)} corpus to vary, expected at least two"
        )
    whole = float(base[varied].sum())
    least = (config.min_share or 0.0) / whole
    if not 0 <= least * len(varied) < 1:
        raise ConfigError(
            f"--min-share is {config.min_share}, expected at least 0 and less than "
            f"{whole / len(varied):g}, an equal share of {len(varied)} corpora"
        )
    points = (
        _grid_points(config, len(varied))
        if config.method == "grid"
        else _random_points(config, base[varied] / whole, least)
    )
    # The other corpora keep the shares of the base.
    rows = np.tile(base, (len(points), 1))
    rows[:, varied] = base[varied].sum() * raised(points, least)
    return normalised(rows)


def grid_size(num_corpora: int, levels: int) -> int:
    """Number of points of the simplex whose shares are multiples of ``1 / levels``."""
    return math.comb(levels + num_corpora - 1, num_corpora - 1)


def grid(num_corpora: int, levels: int) -> Shares:
    """Every blend whose shares are multiples of ``1 / levels``; corners leave corpora out.

    Returns:
        Shape ``(grid_size(num_corpora, levels), num_corpora)``.
    """
    # Bars among stars: the stars between two bars are a corpus's share.
    places = levels + num_corpora - 1
    bars = np.array(list(combinations(range(places), num_corpora - 1)), np.int64)
    return (np.diff(bars, axis=1, prepend=-1, append=places) - 1) / levels


def one_at_a_time(base: Shares, corpora: list[int], factors: list[float]) -> Shares:
    """The base, then blends in which one corpus has another share, and the others give or take.

    Args:
        base: A blend. Shape ``(num_corpora,)``.
        corpora: Numbers of the corpora whose shares are changed.
        factors: Factors for the share of each; the product is at most 1.

    Returns:
        Shape ``(1 + len(corpora) * len(factors), num_corpora)``. The other corpora keep their
        proportions.
    """
    rows = [base]
    for corpus in corpora:
        for factor in factors:
            share = factor * base[corpus]
            row = base * ((1 - share) / (1 - base[corpus]))
            row[corpus] = share
            rows.append(row)
    return np.array(rows)


def raised(blends: Shares, least: float) -> Shares:
    """Blends moved inwards so that no share is below ``least``."""
    return least + (1 - blends.shape[-1] * least) * blends


def normalised(blends: Shares) -> Shares:
    """Blends with shares of 12 decimals, whose sums are as near to 1 as floats allow.

    So blends read from a file equal those written. A smaller share would not be drawn in the
    first 10^12 samples; it becomes 0.
    """
    rows = [(row / math.fsum(row)).round(_DECIMALS) for row in blends]
    for row in rows:
        largest = row.argmax()
        row[largest] = round(1 - math.fsum(np.delete(row, largest)), _DECIMALS)
    return np.array(rows)


def _grid_points(config: SweepConfig, num_corpora: int) -> Shares:
    assert config.levels is not None
    size = grid_size(num_corpora, config.levels)
    too_many = config.runs is None and size > MAX_GRID
    if too_many or size > _MAX_LISTED:
        raise ConfigError(
            f"--levels {config.levels}: the grid of {num_corpora} corpora has {size:,} points. "
            f"Choose fewer levels or --corpora"
            f"{', or select some of them with --runs' if size <= _MAX_LISTED else ''}; or draw "
            f"blends with --method dirichlet."
        )
    if config.runs is not None and config.runs > size:
        raise ConfigError(f"--runs is {config.runs}, expected at most the grid's {size:,} points")
    points = grid(num_corpora, config.levels)
    if config.runs is None:
        return points
    chosen = np.random.default_rng(config.seed).choice(size, config.runs, replace=False)
    return points[np.sort(chosen)]


def _random_points(config: SweepConfig, base: Shares, least: float) -> Shares:
    """Points from a Dirichlet distribution; more points begin with the same ones."""
    assert config.runs is not None
    parameters = np.ones(len(base))
    if config.concentration is not None:
        # ``raised`` moves the points back, so that the base is their center.
        center = (base - least) / (1 - len(base) * least)
        if center.min() <= 0:
            raise ConfigError(
                f"--min-share is {config.min_share}, more than a corpus of the base has. Choose a "
                f"smaller one, or leave out --concentration."
            )
        parameters = config.concentration * center
    return np.random.default_rng(config.seed).dirichlet(parameters, config.runs)


def _check_factors(
    factors: list[float], corpora: Sequence[str], base: Shares, varied: list[int]
) -> None:
    if len(corpora) < 2:
        raise ConfigError("a blend of one corpus cannot be changed, expected at least two")
    for number in varied:
        if base[number] == 1:
            raise ConfigError(
                f"{corpora[number]!r} has all of the blend, up to rounding, so its share cannot be "
                f"given to others. Raise the weights of the others."
            )
        for factor in factors:
            if factor * base[number] > 1:
                raise ConfigError(
                    f"--factors: {factor:g} times the share of {corpora[number]!r}, "
                    f"{base[number]:.4g}, is above 1. Choose smaller factors, or --corpora."
                )


def _numbers(named: Sequence[str], corpora: Sequence[str]) -> list[int]:
    for name in named:
        if name not in corpora:
            near = difflib.get_close_matches(name, corpora, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Expected {', '.join(corpora)}."
            raise ConfigError(f"--corpora: there is no corpus {name!r}. {hint}")
    return [number for number, name in enumerate(corpora) if name in named or not named]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
