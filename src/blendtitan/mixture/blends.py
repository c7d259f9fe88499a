"""Blends as points of a simplex: rows of shares, each at least 0, that sum to 1."""

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]
"""A row for each blend, a column for each corpus."""

_DECIMALS = 12


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


def dirichlet(parameters: Shares, num_blends: int, seed: int) -> Shares:
    """Blends drawn from a Dirichlet distribution; more of them begin with the same ones.

    Args:
        parameters: Of the distribution, above 0. All 1: every blend is as likely. A blend times
            a number: around that blend, the nearer the larger the number. Shape ``(num_corpora,)``.
        num_blends: How many are drawn.
        seed: Chooses them.

    Returns:
        Shape ``(num_blends, num_corpora)``.
    """
    return np.random.default_rng(seed).dirichlet(parameters, num_blends)


def one_at_a_time(base: Shares, corpora: list[int], factors: list[float]) -> Shares:
    """The base, then blends in which one corpus has another share, and the others give or take.

    Args:
        base: A blend. Shape ``(num_corpora,)``.
        corpora: Numbers of the corpora whose shares are changed.
        factors: What the share of each is multiplied with; at most 1 comes of it.

    Returns:
        Shape ``(1 + len(corpora) * len(factors), num_corpora)``. The corpora that are not changed
        keep their proportions.
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
    """Blends drawn together so that no share is below ``least``."""
    return least + (1 - blends.shape[-1] * least) * blends


def lowered(blends: Shares, least: float) -> Shares:
    """The blends that ``raised`` makes into these."""
    return (blends - least) / (1 - blends.shape[-1] * least)


def placed(blends: Shares, base: Shares, corpora: list[int]) -> Shares:
    """Blends of some corpora as parts of blends of all; the other corpora keep the base's shares.

    Args:
        blends: Shape ``(num_blends, len(corpora))``.
        base: Shape ``(num_corpora,)``.
        corpora: Numbers of the columns of ``blends``.

    Returns:
        Shape ``(num_blends, num_corpora)``.
    """
    rows = np.tile(base, (len(blends), 1))
    rows[:, corpora] = base[corpora].sum() * blends
    return rows


def normalised(blends: Shares) -> Shares:
    """Blends with shares of 12 decimals, whose sums are as near to 1 as floats come.

    So they are read and compared as they are written. A share below that would not be drawn in
    the first 10^12 samples; it becomes 0.
    """
    return np.array([_rounded(row / math.fsum(row)) for row in blends])


def _rounded(row: Shares) -> Shares:
    shares = row.round(_DECIMALS)
    largest = shares.argmax()
    shares[largest] = round(1 - math.fsum(np.delete(shares, largest)), _DECIMALS)
    return shares
