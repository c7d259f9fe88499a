"""Courses that leave out slots, or deal the slots of a step to ranks in another way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np

from blendtitan.errors import ResumeError
from blendtitan.order.slots import Course, IntArray


@dataclass(frozen=True, slots=True)
class Skips:
    """Stretches of slots that a run leaves out. Arrays have the shape ``(n,)``."""

    firsts: IntArray
    stops: IntArray
    """Each stretch ends before its stop. Stretches are in order, and no two touch."""

    @classmethod
    def of(cls, stretches: Iterable[tuple[int, int]] = ()) -> Self:
        """The slots of some stretches ``(first, stop)``, which may overlap."""
        joined: list[list[int]] = []
        for first, stop in sorted(each for each in stretches if each[0] < each[1]):
            if joined and first <= joined[-1][1]:
                joined[-1][1] = max(stop, joined[-1][1])
            else:
                joined.append([first, stop])
        firsts, stops = np.array(joined, np.int64).reshape(-1, 2).T
        return cls(firsts, stops)

    def before(self, stop: int) -> Self:
        """The same below the slot ``stop``."""
        return type(self).of((first, min(end, stop)) for first, end in self.stretches)

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """``(first, stop)`` of each stretch."""
        return list(zip(self.firsts.tolist(), self.stops.tolist(), strict=True))

    def slots_of(self, kept: IntArray) -> IntArray:
        """The slots of some samples of the stream, numbered without the skipped slots."""
        skipped = np.concatenate([[0], np.cumsum(self.stops - self.firsts)])
        return kept + skipped[np.searchsorted(self.kept_firsts, kept, side="right")]

    @property
    def kept_firsts(self) -> IntArray:
        """Number of slots before each stretch that are not skipped."""
        lengths = self.stops - self.firsts
        return self.firsts - np.cumsum(lengths) + lengths

    def slot_of(self, kept: int) -> int:
        """The slot of one sample of the stream."""
        return int(self.slots_of(np.array([kept], np.int64))[0])

    def holds(self, slot: int) -> bool:
        """Whether a slot is skipped."""
        return bool(((self.firsts <= slot) & (slot < self.stops)).any())

    def first_kept(self, slot: int) -> int:
        """The first slot from ``slot`` on that is not skipped."""
        return self.slot_of(self.kept_before(slot))

    def course(self, course: Course) -> "ChangedCourse":
        """A course that leaves out these slots, and deals the others as before."""
        return changed(course, skips=self)

    def kept_before(self, slot: int) -> int:
        """Number of slots before ``slot`` that are not skipped."""
        return slot - int(np.clip(slot - self.firsts, 0, self.stops - self.firsts).sum())


NO_SKIPS = Skips(np.empty(0, np.int64), np.empty(0, np.int64))


class Step(NamedTuple):
    """One optimizer step."""

    consumed_samples: int
    """Before the step."""
    num_samples: int


Deal = Callable[[IntArray], IntArray]
"""Deals the slots of a step, of shape ``(num_samples,)``, to micro batches of ranks: shape
``(micro_batches, dp_world_size, micro_batch)``."""


@dataclass(frozen=True)
class ChangedCourse(Course):
    """A course without skipped slots, whose steps may be dealt to the ranks in another way.

    A position, ``consumed_samples``, counts skipped slots too: it jumps over them.
    """

    skips: Skips = NO_SKIPS
    deal: Deal | None = None
    """None: in the order of the slots."""
    step_at: Callable[[int], Step] | None = None
    """The step that reads its next micro batch at ``consumed_samples``. Needed with ``deal``."""

    def after(self, consumed_samples: int) -> int:
        """``consumed_samples`` after one more micro batch of all ranks."""
        return self.skips.slot_of(self.skips.kept_before(consumed_samples) + self.stride)

    def between_steps(self, consumed_samples: int) -> int:
        """See ``Course.between_steps``.

        Raises:
            ResumeError: The position is within a step whose rows are dealt in another way.
        """
        if self.step_at is not None and self.block(consumed_samples)[1] > 0:
            step = self.step_at(consumed_samples)
            raise ResumeError(
                f"{consumed_samples:,} consumed samples are within an optimizer step, which begins "
                f"after {step.consumed_samples:,} and has {step.num_samples:,}. The samples of a "
                f"balanced step are not read in order, so a state can only be saved or loaded "
                f"between steps."
            )
        return consumed_samples

    def block(self, consumed_samples: int) -> tuple[int, int]:
        """See ``Course.block``. With ``deal``, a block is a step."""
        kept = self.skips.kept_before(consumed_samples)
        if self.step_at is None:
            start, index = super().block(kept)
            return self.skips.slot_of(start), index
        start = self.step_at(consumed_samples).consumed_samples
        return start, (kept - self.skips.kept_before(start)) // self.stride

    def slots(self, start: int) -> IntArray:
        """See ``Course.slots``."""
        kept = self.skips.kept_before(start)
        if self.step_at is None or self.deal is None:
            return self.skips.slots_of(super().slots(kept))
        count = self.step_at(start).num_samples
        return self.deal(self.skips.slots_of(kept + np.arange(count)))[:, self.dp_rank]


def changed(course: Course, **parts: Any) -> ChangedCourse:
    """A course with some fields of ``ChangedCourse`` replaced; the others stay as they are."""
    kept = {each.name: getattr(course, each.name) for each in fields(course)}
    return ChangedCourse(**kept | parts)
