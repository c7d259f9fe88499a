"""The slots that each replica of a fault-tolerant job reads in a step.

A step begins at the number of samples that are committed. Its slots that are not skipped are cut
into *units*: the samples that the data-parallel ranks of one replica pass through the model at
once. The replicas that take part are numbered from 0, and unit ``u`` belongs to replica ``u mod
num_replicas``. So replicas with equal shares read what as many ranks of a single job would read,
and each slot of a step belongs to exactly one replica, whatever their number. In a balanced step,
each replica has as many rows, but others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from blendtitan.errors import ConfigError, ResumeError
from blendtitan.order.balance import balanced
from blendtitan.order.course import NO_SKIPS, Skips
from blendtitan.order.slots import Course, IntArray

Costs = Callable[[IntArray], IntArray]
"""The cost of the row of each slot. Shapes ``(n,)``."""

BatchPolicy = Literal["same_batch", "smaller_batch"]
"""How many samples a step has while replicas are missing: as many as always, which those left
divide among themselves, or the usual share of each replica that is left."""


class DividedStep(NamedTuple):
    """A step as the replicas that take part in it divide it."""

    num_units: int
    num_replicas: int

    def units_of(self, replica: int) -> range:
        """The units of one replica, in the order in which it reads them."""
        return range(replica, self.num_units, self.num_replicas)


def step_of(
    policy: BatchPolicy, *, full_units: int, all_replicas: int, num_replicas: int
) -> DividedStep:
    """The next step of ``num_replicas`` replicas.

    Args:
        policy: How many samples a step has while replicas are missing.
        full_units: Units of a step in which all replicas take part.
        all_replicas: Replicas of the job when none is missing.
        num_replicas: Replicas that take part.
    """
    if policy == "same_batch":
        return DividedStep(full_units, num_replicas)
    return DividedStep(full_units // all_replicas * num_replicas, num_replicas)


def check_units(
    policy: BatchPolicy, *, key: str, full_units: int, unit: int, all_replicas: int
) -> None:
    """Check that a step of all replicas gives each of them a share.

    Args:
        policy: How many samples a step has while replicas are missing.
        key: The key that sets the samples of the step.
        full_units: Units of a step in which all replicas take part.
        unit: Samples of a unit.
        all_replicas: Replicas of the job when none is missing.

    Raises:
        ConfigError: A replica would have none, or, with equal shares, the units do not divide.
    """
    is_equal = policy == "smaller_batch"
    if full_units < all_replicas or (is_equal and full_units % all_replicas):
        least = f"{unit * all_replicas:,}"
        expected = f"a multiple of {least}" if is_equal else f"at least {least}"
        raise ConfigError(
            f"{key} is {full_units * unit:,}, expected {expected}: "
            f"fault_tolerance.group_size = {all_replicas:,} replicas, each with {unit:,} samples "
            f"at once (training.local_batch_size x its data-parallel ranks), and "
            f'fault_tolerance.batch_policy = "{policy}".'
        )


Stage = tuple[int, int]
"""``(samples, step)``: from so many samples of the stream on, a step has ``step`` samples."""


@dataclass(frozen=True)
class ReplicaCourse(Course):
    """The slots of one rank of one replica, as long as the same replicas take part.

    A position, ``consumed_samples``, is the first slot of the replica's next unit in the order of
    the slots. ``dp_rank`` and ``dp_world_size`` count the ranks of this replica only. Samples of
    the stream are counted without skipped slots.
    """

    replica: int = 0
    num_replicas: int = 1
    stages: tuple[Stage, ...] = ()
    """The sizes of the steps, from the first step of these replicas on."""
    skips: Skips = NO_SKIPS
    costs: Costs | None = None
    """The cost of each slot, to balance a step. None: units are divided in the order of slots."""

    def position(self, committed: int) -> int:
        """The position at the beginning of a step."""
        return self._slot_of(self.skips.kept_before(committed))

    def end(self, committed: int) -> int:
        """``consumed_samples`` at the end of the step that begins at ``committed``."""
        first, size = self._step(self.skips.kept_before(committed))
        return self.skips.slot_of(first + size)

    def continues(self, other: "ReplicaCourse", committed: int) -> bool:
        """Whether this course predicted the steps of ``other`` from ``committed`` on."""
        same = (self.replica, self.num_replicas) == (other.replica, other.num_replicas)
        kept = self.skips.kept_before(committed)
        return same and self._stages_from(kept) == other._stages_from(kept)

    def after(self, consumed_samples: int) -> int:
        """The position after one more micro batch."""
        kept = self.skips.kept_before(consumed_samples)
        first, size = self._step(kept)
        following = kept + self.num_replicas * self.stride
        if following < first + size:
            return self.skips.slot_of(following)
        return self._slot_of(first + size)

    def between_steps(self, consumed_samples: int) -> int:
        """See ``Course.between_steps``.

        Raises:
            ResumeError: The position is within a step.
        """
        if self._stages_from(self.skips.kept_before(consumed_samples)) is None:
            raise ResumeError(
                f"{consumed_samples:,} consumed samples are within a step of several replicas, "
                f"whose state can only be saved between steps"
            )
        return consumed_samples

    def block(self, consumed_samples: int) -> tuple[int, int]:
        """See ``Course.block``. A block is a step."""
        kept = self.skips.kept_before(consumed_samples)
        first, _ = self._step(kept)
        return self.skips.slot_of(first), (kept - first) // self.stride // self.num_replicas

    def slots(self, start: int) -> IntArray:
        """See ``Course.slots``."""
        first, size = self._step(self.skips.kept_before(start))
        rows = self.skips.slots_of(first + np.arange(size))
        step = DividedStep(size // self.stride, self.num_replicas)
        shape = (self.dp_world_size, self.micro_batch)
        share = plain_share(step, self.replica, shape)
        if self.costs is not None:
            share = balanced_shares(self.costs(rows), step, shape)[self.replica]
        return rows[share[:, self.dp_rank]]

    def _slot_of(self, first: int) -> int:
        return self.skips.slot_of(first + self.replica * self.stride)

    def _step(self, kept: int) -> Stage:
        """The step that a unit belongs to: samples of the stream before it, and its size."""
        begin, size = [stage for stage in self.stages if stage[0] <= kept][-1]
        return begin + (kept - begin) // size * size, size

    def _stages_from(self, kept: int) -> list[Stage] | None:
        """The stages of the steps from ``kept`` on; None if no step begins there."""
        if kept < self.stages[0][0] or self._step(kept)[0] != kept:
            return None
        return [self._step(kept), *(stage for stage in self.stages if stage[0] > kept)]


def plain_share(step: DividedStep, replica: int, shape: tuple[int, int]) -> IntArray:
    """The rows of a step that a replica reads, in the order of the slots.

    Args:
        step: The step.
        replica: The replica.
        shape: Ranks of a replica, and samples of a micro batch of one rank.

    Returns:
        The index of each row in the step, of the shape ``(micro batches, *shape)``.
    """
    return np.arange(step.num_units * math.prod(shape)).reshape(-1, *shape)[
        replica :: step.num_replicas
    ]


def balanced_shares(costs: IntArray, step: DividedStep, shape: tuple[int, int]) -> list[IntArray]:
    """The rows of each replica, in a step in which the replicas wait less for each other.

    If some replicas have a unit more than others, it has the rows of the lowest costs. The other
    rows are dealt as to the ranks of one job. Arguments and shapes are those of ``plain_share``.

    Args:
        costs: The cost of each row of the step. Shape ``(rows,)``.
        step: The step.
        shape: Ranks of a replica, and samples of a micro batch of one rank.

    Returns:
        The plain shares, unless the slowest replica is sooner ready with others.
    """
    (ranks, micro_batch), replicas = shape, step.num_replicas
    plain = [plain_share(step, replica, shape) for replica in range(replicas)]
    more = step.num_units % replicas
    common = len(costs) - more * ranks * micro_batch
    order = np.argsort(-costs, kind="stable")
    deals: list[IntArray] = []
    for rows, takers in ((np.sort(order[:common]), replicas), (np.sort(order[common:]), more)):
        if len(rows):
            deal = balanced(costs[rows], ranks=takers * ranks, micro_batch=micro_batch)
            deals.append(rows[deal].reshape(-1, takers, *shape))
    shares = [
        np.concatenate([deal[:, replica] for deal in deals if replica < deal.shape[1]])
        for replica in range(replicas)
    ]
    return min(plain, shares, key=lambda each: slowest(costs, each))


def slowest(costs: IntArray, shares: Sequence[IntArray]) -> int:
    """Cost of the replica that is ready last. Replicas wait for each other at the end of a step."""
    return max((int(costs[share].sum(axis=2).max(axis=1).sum()) for share in shares), default=0)


def diverged(lineages: Sequence[int]) -> frozenset[int]:
    """The replicas whose state is not that of most others; of equally many, the first one's stays.

    Args:
        lineages: A number for the state of each replica; 0: it comes from a checkpoint, which may
            be of another attempt at the same step. It counts only if all states do.
    """
    kept = max(lineages, key=lambda each: (each != 0, lineages.count(each), -lineages.index(each)))
    return frozenset(place for place, each in enumerate(lineages) if each != kept)
