"""The batch schedule: the number of samples of each step.

It distinguishes a changed global batch size from a wrong position. States call it pace.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from blendtitan.errors import ResumeError
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
    last = schedule[-1]
    if global_batch_size == last.global_batch_size:
        return schedule
    new = BatchStage(
        step=step,
        consumed_samples=last.consumed_at(step),
        global_batch_size=global_batch_size,
    )
    return (*(stage for stage in schedule if stage.step < step), new)


def begun(schedule: BatchSchedule, consumed_samples: int) -> BatchSchedule:
    """The part of a schedule that a run has used after so many samples."""
    return tuple(s for s in schedule if s.consumed_samples < consumed_samples or not s.step)


def consumed_at(schedule: Sequence[BatchStage], step: int) -> int:
    """Samples consumed after ``step`` steps of a run."""
    return [stage for stage in schedule if stage.step <= step][-1].consumed_at(step)


def slots_of(schedule: Sequence[BatchStage], step: int) -> range:
    """The slots of a step. The first step of a run is 1."""
    stage = [stage for stage in schedule if stage.step < step][-1]
    return range(stage.consumed_at(step - 1), stage.consumed_at(step))


def step_of(schedule: Sequence[BatchStage], slot: int) -> int:
    """The step that trains on a slot. The first step of a run is 1."""
    stage = [stage for stage in schedule if stage.consumed_samples <= slot][-1]
    return stage.step_at(slot) + 1


def steps_before(schedule: Sequence[BatchStage], slot: float) -> float:
    """Steps before a slot; not whole within a step."""
    stage = [stage for stage in schedule if stage.consumed_samples <= slot][-1]
    return stage.step + (slot - stage.consumed_samples) / stage.global_batch_size


def listed_sizes(schedule: Sequence[BatchStage], steps: int) -> str:
    """The samples of a step in a run of so many steps, such as ``4, then 8``."""
    sizes = [f"{s.global_batch_size:,}" for s in schedule if s.step < max(1, steps)]
    return ", then ".join(sizes)
