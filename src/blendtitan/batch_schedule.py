"""The batch schedule: how many samples each step takes, and from which step on.

It distinguishes another global batch size from a wrong place in the order. States call it pace.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from blendtitan.errors import ResumeError
from blendtitan.state import PACE_KEY, STATE_KEY, damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchStage:
    """After ``step`` steps the run had ``consumed_samples`` behind it; each step takes as many."""

    step: int = 0
    consumed_samples: int = 0
    global_batch_size: int

    def consumed_at(self, step: int) -> int:
        """Consumed samples after so many steps; below 0 before the first of this stage."""
        return self.consumed_samples + (step - self.step) * self.global_batch_size

    def step_at(self, consumed_samples: int) -> int:
        """Steps behind the run once it has consumed so many samples, the last one perhaps begun."""
        return self.step + (consumed_samples - self.consumed_samples) // self.global_batch_size

    def check(self, step: int, *, consumed_samples: int) -> None:
        """Check that a loader stands where this stage brings it by ``step``.

        Raises:
            ResumeError: It stands elsewhere.
        """
        if step >= self.step and consumed_samples == self.consumed_at(step):
            return
        before = f"{self.consumed_samples:,} samples, and " if self.consumed_samples else ""
        raise ResumeError(
            f"the data loader has consumed {consumed_samples:,} samples, expected "
            f"{self.consumed_at(step):,} at step {step:,}: {before}{step - self.step:,} steps of "
            f"{self.global_batch_size:,} samples. Its state and the trainer's step do not belong "
            f"together: load both from one checkpoint. If that was not saved by this trainer, set "
            f"training.global_batch_size to the value of its run. To continue after step x "
            f"training.global_batch_size samples all the same, set "
            f'checkpoint.exclude_from_loading = ["dataloader"].'
        )


BatchSchedule = tuple[BatchStage, ...]
"""The stages of a whole run, at growing steps, the first of them from step 0 on."""


def schedule_of_state(state_dict: dict[str, Any]) -> BatchSchedule:
    """The schedule that a loader's state was saved with; none if it was never aligned.

    Raises:
        ResumeError: They are damaged.
    """
    saved = json.loads(state_dict[STATE_KEY]).get(PACE_KEY, [])
    names = [field.name for field in fields(BatchStage)]
    is_right = isinstance(saved, list) and all(
        isinstance(each, dict) and all(type(each.get(name)) is int for name in names)
        for each in saved
    )
    steps = [each["step"] for each in saved] if is_right else []
    if not is_right or steps != sorted(set(steps)) or steps[:1] not in ([], [0]):
        expected = f"a list of whole numbers under {names}, at growing steps from 0 on"
        raise damaged(f"{PACE_KEY} = {saved!r}", expected)
    return tuple(BatchStage(**{name: each[name] for name in names}) for each in saved)


def saved_schedule(schedule: BatchSchedule) -> dict[str, Any]:
    """The schedule as a loader's state keeps it."""
    return {PACE_KEY: [asdict(stage) for stage in schedule]} if schedule else {}


def changed_at(schedule: BatchSchedule, step: int, *, global_batch_size: int) -> BatchSchedule:
    """The schedule of a run that takes so many samples a step after ``step``."""
    last = schedule[-1]
    if global_batch_size == last.global_batch_size:
        return schedule
    new = BatchStage(
        step=step,
        consumed_samples=last.consumed_at(step),
        global_batch_size=global_batch_size,
    )
    return (*(stage for stage in schedule if stage.step < step), new)


def consumed_at(schedule: Sequence[BatchStage], step: int) -> int:
    """Consumed samples after so many steps of a run."""
    return [stage for stage in schedule if stage.step <= step][-1].consumed_at(step)


def step_of(schedule: Sequence[BatchStage], slot: int) -> int:
    """The step that trains on a slot; a run's first step is 1."""
    stage = [stage for stage in schedule if stage.consumed_samples <= slot][-1]
    return stage.step_at(slot) + 1
