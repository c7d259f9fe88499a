"""Balanced steps: rows of similar cost run at the same time, on all ranks.

Shapes: A = micro batches of one rank in a step, R = data-parallel ranks, B = micro batch. A *deal*
holds the index of a row in its step for each place in a micro batch of a rank, ``(A, R, B)``.
"""

import numpy as np

from blendtitan.order.slots import IntArray


def unbalanced(num_rows: int, *, ranks: int, micro_batch: int) -> IntArray:
    """The deal of a step in the global order: each rank takes consecutive rows."""
    return np.arange(num_rows).reshape(-1, ranks, micro_batch)


def balanced(costs: IntArray, *, ranks: int, micro_batch: int) -> IntArray:
    """The deal of a step whose ranks wait less for each other than in the global order.

    Rows are sorted by cost, the most expensive first (ties: slot), and cut into A groups of R * B
    rows. Each group is one micro batch of every rank. A group is dealt in B rounds of R rows: the
    rank with the lowest total cost so far takes the most expensive row of the round, and so on
    (ties: rank). Costs are compared only within a step, so a cost that all rows share has no
    influence.

    Args:
        costs: Cost of each row of a step. Shape ``(A * R * B,)``.
        ranks: R.
        micro_batch: B.

    Returns:
        Shape ``(A, R, B)``. That of ``unbalanced`` if its ``duration`` is not longer.
    """
    plain = unbalanced(len(costs), ranks=ranks, micro_batch=micro_batch)
    if ranks == 1:
        return plain
    order = np.argsort(-costs, kind="stable")
    rounds = costs[order].reshape(-1, ranks).tolist()
    totals, takers = [0] * ranks, list[int]()
    for costs_of_round in rounds:
        ranked = sorted(range(ranks), key=totals.__getitem__)  # stable, so ties go by rank
        for rank, cost in zip(ranked, costs_of_round, strict=True):
            totals[rank] += cost
        takers += ranked
    shape = (-1, micro_batch, ranks)
    deal = np.empty_like(order).reshape(shape)
    np.put_along_axis(deal, np.reshape(takers, shape), order.reshape(shape), axis=2)
    deal = deal.transpose(0, 2, 1)
    return deal if duration(costs, deal) < duration(costs, plain) else plain


def duration(costs: IntArray, deal: IntArray) -> int:
    """Duration of a step, in units of cost: each micro batch lasts as long as its slowest rank.

    TorchTitan's ranks exchange parameters or gradients in every micro batch, and so wait for the
    slowest one each time.
    """
    return int(costs[deal].sum(axis=2).max(axis=1).sum())


def waiting(costs: IntArray, deal: IntArray) -> float:
    """Fraction of a step's duration that a rank waits for others, on average."""
    return 1 - float(costs.sum()) / (deal.shape[1] * duration(costs, deal))
