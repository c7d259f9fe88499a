"""The slots that each replica of a fault-tolerant job reads in a step.

A step begins at the number of samples that are committed. Its slots are cut into *units*: the
samples that the data-parallel ranks of one replica pass through the model at once. The replicas
that take part are numbered from 0, and unit ``u`` belongs to replica ``u mod num_replicas``. So
replicas with equal shares read what as many ranks of a single job would read, and each slot of a
step belongs to exactly one replica, whatever their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from blendtitan.errors import ConfigError
from blendtitan.order.slots import Course, IntArray

_BLOCK_SLOTS = 4096
"""Slots that are resolved together, see ``Course.block``."""

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


_WHOLE = DividedStep(1, 1)
"""A step of one unit, of one replica."""


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


def check_units(policy: BatchPolicy, *, full_units: int, unit: int, all_replicas: int) -> None:
    """Check that a step of all replicas gives each of them a share.

    Args:
        policy: How many samples a step has while replicas are missing.
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
            f"training.global_batch_size is {full_units * unit:,}, expected {expected}: "
            f"fault_tolerance.group_size = {all_replicas:,} replicas, each with {unit:,} samples "
            f"at once (training.local_batch_size x its data-parallel ranks), and "
            f'fault_tolerance.batch_policy = "{policy}".'
        )


@dataclass(frozen=True)
class ReplicaCourse(Course):
    """The slots of one rank of one replica, as long as the same replicas take part.

    A position, ``consumed_samples``, is the first slot of the replica's next micro batch of all its
    ranks. ``dp_rank`` and ``dp_world_size`` count the ranks of this replica only.
    """

    first_slot: int = 0
    """Samples that were committed when these replicas began their first step."""
    step: DividedStep = _WHOLE
    replica: int = 0
    parts: int = 1
    """Micro batches of a unit: above 1 in a pipeline."""

    @property
    def unit(self) -> int:
        """Samples of a unit."""
        return self.stride * self.parts

    @property
    def step_samples(self) -> int:
        """Samples of a step of all replicas."""
        return self.step.num_units * self.unit

    def position(self, committed: int) -> int:
        """The position at the beginning of a step."""
        return committed + self.replica * self.unit

    def continues(self, other: "ReplicaCourse", committed: int) -> bool:
        """Whether this course predicted that ``other`` begins a step at ``committed``."""
        same = (self.step, self.replica) == (other.step, other.replica)
        ahead = committed - self.first_slot
        return same and ahead >= 0 and ahead % self.step_samples == 0

    def after(self, consumed_samples: int) -> int:
        """The position after one more micro batch."""
        step, unit, part = self._place(consumed_samples)
        if part + 1 < self.parts:
            return consumed_samples + self.stride
        if unit + self.step.num_replicas < self.step.num_units:
            return consumed_samples + self.step.num_replicas * self.unit - part * self.stride
        return self.position(self.first_slot + (step + 1) * self.step_samples)

    def block(self, consumed_samples: int) -> tuple[int, int]:
        """See ``Course.block``. A block is whole steps."""
        step, unit, part = self._place(consumed_samples)
        micro_batches = len(self._offsets)
        of_block = step % self._steps_of_block
        index = unit // self.step.num_replicas * self.parts + part
        start = self.position(self.first_slot + (step - of_block) * self.step_samples)
        return start, of_block * micro_batches + index

    def slots(self, start: int) -> IntArray:
        """See ``Course.slots``."""
        steps = np.arange(self._steps_of_block)[:, None] * self.step_samples
        first = start - self.replica * self.unit + self.dp_rank * self.micro_batch
        micro_batches = (first + steps + self._offsets).reshape(-1, 1)
        return micro_batches + np.arange(self.micro_batch)

    def _place(self, consumed_samples: int) -> tuple[int, int, int]:
        """The step since ``first_slot``, the unit in it, and the part of the unit."""
        step, rest = divmod(consumed_samples - self.first_slot, self.step_samples)
        unit, rest = divmod(rest, self.unit)
        return step, unit, rest // self.stride

    @property
    def _offsets(self) -> IntArray:
        """First slot of each micro batch of all ranks, counted from the step's. Shape ``(n,)``."""
        units = np.array(self.step.units_of(self.replica), np.int64) * self.unit
        return (units[:, None] + np.arange(self.parts) * self.stride).ravel()

    @property
    def _steps_of_block(self) -> int:
        return max(1, _BLOCK_SLOTS // (len(self._offsets) * self.micro_batch))


def diverged(lineages: Sequence[int]) -> frozenset[int]:
    """The replicas whose state is not that of most others; of equally many, the first one's stays.

    Args:
        lineages: A number for the state of each replica.
    """
    kept = max(lineages, key=lambda each: (lineages.count(each), -lineages.index(each)))
    return frozenset(place for place, each in enumerate(lineages) if each != kept)
