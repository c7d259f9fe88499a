"""Which blends a sweep tries: a grid, random ones, or one corpus at a time."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.mixture.blends import (
    Shares,
    dirichlet,
    grid,
    grid_size,
    lowered,
    normalised,
    one_at_a_time,
    placed,
    raised,
)

METHODS: Mapping[str, tuple[str, ...]] = {
    "grid": ("levels", "runs", "min_share"),
    "dirichlet": ("runs", "concentration", "min_share"),
    "one-at-a-time": ("factors",),
}
"""The settings that each method takes; it needs the first of them."""

MAX_GRID = 1000
"""Most points of a grid without ``runs``: each is a training run."""

_MAX_LISTED = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """The blends of a sweep. None: not given."""

    method: str
    """``grid``, ``dirichlet`` or ``one-at-a-time``."""

    corpora: tuple[str, ...] = ()
    """The corpora whose shares change among each other. None named: all."""

    runs: int | None = None
    """Blends to draw; of a grid, so many of its points."""

    seed: int = 0
    """Chooses what is drawn."""

    levels: int | None = None
    """The shares of a grid are multiples of ``1 / levels``."""

    concentration: float | None = None
    """How near to the base blends are drawn, the nearer the larger. None: anywhere, evenly."""

    factors: tuple[float, ...] | None = None
    """What the share of one corpus at a time is multiplied with."""

    min_share: float | None = None
    """The least share of a corpus. None: 0, which leaves it out."""

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

    Args:
        config: Which blends.
        corpora: Names of all corpora.
        base: The blend that they are made around or over. Shape ``(num_corpora,)``.

    Returns:
        Shape ``(num_blends, num_corpora)``.

    Raises:
        ConfigError: A corpus is unknown, or no such blends can be made of this base.
    """
    varied = _numbers(config.corpora, corpora)
    if config.method == "one-at-a-time":
        factors = list(config.factors or ())
        _check_factors(factors, corpora, base, varied)
        return normalised(one_at_a_time(base, varied, factors))
    if len(varied) < 2:
        raise ConfigError(
            f"--method {config.method}: {len(varied)} corpus would have all of its share always, "
            f"expected two corpora at least"
        )
    whole = float(base[varied].sum())
    least = (config.min_share or 0.0) / whole
    if not 0 <= least * len(varied) < 1:
        raise ConfigError(
            f"--min-share is {config.min_share}, expected at least 0 and less than "
            f"{whole / len(varied):g}, an equal part of what {len(varied)} corpora have"
        )
    points = (
        _grid_points(config, len(varied))
        if config.method == "grid"
        else _random_points(config, base[varied] / whole, least)
    )
    return normalised(placed(raised(points, least), base, varied))


def _grid_points(config: SweepConfig, num_corpora: int) -> Shares:
    assert config.levels is not None
    size = grid_size(num_corpora, config.levels)
    too_many = config.runs is None and size > MAX_GRID
    if too_many or size > _MAX_LISTED:
        raise ConfigError(
            f"--levels {config.levels}: the grid of {num_corpora} corpora has {size:,} points. "
            f"Choose fewer levels or --corpora"
            f"{', or say with --runs how many of them' if size <= _MAX_LISTED else ''}; or draw "
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
    assert config.runs is not None
    if config.concentration is None:
        return dirichlet(np.ones(len(base)), config.runs, config.seed)
    center = lowered(base, least)
    if center.min() <= 0:
        raise ConfigError(
            f"--min-share is {config.min_share}, which a corpus of the base has not. Choose a "
            f"smaller one, or leave out --concentration."
        )
    return dirichlet(config.concentration * center, config.runs, config.seed)


def _check_factors(
    factors: list[float], corpora: Sequence[str], base: Shares, varied: list[int]
) -> None:
    if len(corpora) < 2:
        raise ConfigError("a blend of one corpus cannot be changed, expected two at least")
    for number in varied:
        if base[number] == 1:
            raise ConfigError(
                f"{corpora[number]!r} has all of the blend, up to rounding, so no other can take "
                f"what it gives. Raise the weights of the others."
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
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(corpora)}."
            raise ConfigError(f"--corpora: there is no corpus {name!r}. {hint}")
    return [number for number, name in enumerate(corpora) if name in named or not named]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
