"""The batch schedule: the number of samples of each step.

It distinguishes a changed global batch size from a wrong position. States call it pace.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from blendtitan.errors import ResumeError
from blendtitan.order.course import NO_SKIPS, Skips
from blendtitan.state import PACE_KEY, STATE_KEY, damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchStage:
    """An entry of the batch schedule: the size of the steps after ``step``.

    ``consumed_samples`` were consumed in the first ``step`` steps.
    """

    step: int = 0
    consumed_samples: int = 0
    global_batch_size: int

    def consumed_at(self, step: int) -> int:
        """Samples consumed after ``step`` steps; below 0 before the first step of this entry."""
        return self.consumed_samples + (step - self.step) * self.global_batch_size

    def step_at(self, consumed_samples: int) -> int:
        """Number of complete steps after ``consumed_samples`` samples."""
        return self.step + (consumed_samples - self.consumed_samples) // self.global_batch_size

    def check(self, step: int, *, consumed_samples: int) -> None:
        """Check that a loader has consumed the samples of exactly ``step`` steps.

        Raises:
            ResumeError: The number of consumed samples differs.
        """
        if step >= self.step and consumed_samples == self.consumed_at(step):
            return
        before = f"{self.consumed_samples:,} samples, and " if self.consumed_samples else ""
        raise ResumeError(
            f"the data loader has consumed {consumed_samples:,} samples, expected "
            f"{self.consumed_at(step):,} at step {step:,}: {before}{step - self.step:,} steps of "
            f"{self.global_batch_size:,} samples. Its state and the trainer's step do not belong "
            f"together: load both from one checkpoint. If another trainer saved it, set "
            f"training.global_batch_size to the value of that run. To continue after step x "
            f"training.global_batch_size samples anyway, set "
            f'checkpoint.exclude_from_loading = ["dataloader"].'
        )


BatchSchedule = tuple[BatchStage, ...]
"""The batch schedule of a whole run, in order of steps. The first entry begins at step 0."""


def schedule_of_state(state_dict: dict[str, Any]) -> BatchSchedule:
    """The batch schedule in a loader's state; empty if the loader was never aligned.

    Raises:
        ResumeError: It is damaged.
    """
    saved = json.loads(state_dict[STATE_KEY]).get(PACE_KEY, [])
    names = [field.name for field in fields(BatchStage)]
    is_right = isinstance(saved, list) and all(
        isinstance(each, dict) and all(type(each.get(name)) is int for name in names)
        for each in saved
    )
    steps = [each["step"] for each in saved] if is_right else []
    if not is_right or steps != sorted(set(steps)) or steps[:1] not in ([], [0]):
        expected = f"a list of whole numbers under {names}, with increasing steps from 0"
        raise damaged(f"{PACE_KEY} = {saved!r}", expected)
    return tuple(BatchStage(**{name: each[name] for name in names}) for each in saved)


def saved_schedule(schedule: BatchSchedule) -> dict[str, Any]:
    """The schedule as JSON, for a loader's state."""
    return {PACE_KEY: [asdict(stage) for stage in schedule]} if schedule else {}


def changed_at(schedule: BatchSchedule, step: int, *, global_batch_size: int) -> BatchSchedule:
    """The batch schedule of a run whose global batch size may change after ``step``."""
    last = stage_at(schedule, step)
    if global_batch_size == last.global_batch_size:
        return schedule
    new = BatchStage(
        step=step,
        consumed_samples=last.consumed_at(step),
        global_batch_size=global_batch_size,
    )
    return (*(stage for stage in schedule if stage.step < step), new)


def begun(schedule: BatchSchedule, consumed_samples: int) -> BatchSchedule:
    """The part of a schedule that a run has used after so many samples.

    A change of the size that has not been used may still be edited. A jump over slots has happened.
    """
    *before, last = [s for s in schedule if s.consumed_samples <= consumed_samples]
    if before and last.consumed_samples == consumed_samples:
        size = before[-1].global_batch_size
        is_jump = before[-1].consumed_at(last.step) != consumed_samples
        return (*before, *([replace(last, global_batch_size=size)] if is_jump else []))
    return (*before, last)


def with_jumps(schedule: Sequence[BatchStage], skips: Skips) -> BatchSchedule:
    """The schedule of a run that skips slots.

    Each step after which the stream has jumped over slots gets an entry of the same global batch
    size, with the samples consumed by then: so ``consumed_at`` is right at the end of every step.
    """
    found: list[BatchStage] = []
    kept = 0
    for place, stage in enumerate(schedule):
        size = stage.global_batch_size
        if place == 0 or stage.consumed_samples != schedule[place - 1].consumed_at(stage.step):
            kept = skips.kept_before(stage.consumed_samples)
        stop = schedule[place + 1].step if place + 1 < len(schedule) else None
        jumps = [stage.step - (kept - at) // size for at in skips.kept_firsts.tolist() if at > kept]
        for step in sorted({stage.step, *jumps}):
            if stop is None or step < stop:
                slot = skips.slot_of(kept + (step - stage.step) * size)
                found.append(BatchStage(step=step, consumed_samples=slot, global_batch_size=size))
        kept += 0 if stop is None else (stop - stage.step) * size
    return tuple(found)


def stage_at(schedule: Sequence[BatchStage], step: int) -> BatchStage:
    """The entry that is in force after ``step`` steps."""
    return [stage for stage in schedule if stage.step <= step][-1]


def consumed_at(schedule: Sequence[BatchStage], step: int) -> int:
    """Samples consumed after ``step`` steps of a run."""
    return stage_at(schedule, step).consumed_at(step)


def slots_of(schedule: Sequence[BatchStage], step: int, skips: Skips = NO_SKIPS) -> Sequence[int]:
    """The slots of a step. The first step of a run is 1."""
    stage = stage_at(schedule, step - 1)
    start = stage.consumed_at(step - 1)
    slots = range(start, start + stage.global_batch_size)
    if not len(skips.firsts):
        return slots
    return skips.slots_of(skips.kept_before(start) - start + np.array(slots)).tolist()


def step_of(schedule: Sequence[BatchStage], slot: int, skips: Skips = NO_SKIPS) -> int:
    """The step that trains on a slot that is not skipped. The first step of a run is 1."""
    return int(steps_before(schedule, slot, skips)) + 1


def steps_before(schedule: Sequence[BatchStage], slot: int, skips: Skips = NO_SKIPS) -> float:
    """Steps before a slot; not whole within a step."""
    kept = skips.kept_before(slot)
    begun = [(skips.kept_before(stage.consumed_samples), stage) for stage in schedule]
    first, stage = [each for each in begun if each[0] <= kept][-1]
    return stage.step + (kept - first) / stage.global_batch_size


def samples_of(schedule: Sequence[BatchStage], step: int) -> int:
    """Samples that the first ``step`` steps train on: those consumed, without skipped slots."""
    begun = [stage for stage in schedule if stage.step < step]
    stops = [*(stage.step for stage in begun[1:]), step]
    steps = zip(begun, stops, strict=True)
    return sum((stop - stage.step) * stage.global_batch_size for stage, stop in steps)


def size_changes(schedule: Sequence[BatchStage], steps: int) -> list[tuple[int, int]]:
    """Steps before each change of the global batch size in the first ``steps`` steps, and the size.

    The first entry is the size of the first step.
    """
    sizes = [(stage.step, stage.global_batch_size) for stage in schedule if stage.step < steps]
    return [each for i, each in enumerate(sizes) if i == 0 or sizes[i - 1][1] != each[1]]


def listed_sizes(schedule: Sequence[BatchStage], steps: int) -> str:
    """The samples of a step in a run of so many steps, such as ``4, then 8``."""
    return ", then ".join(f"{size:,}" for _, size in size_changes(schedule, max(1, steps)))
