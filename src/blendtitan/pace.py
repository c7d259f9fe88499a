"""How many samples a run's steps take: what tells another global batch size from a wrong place."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from blendtitan.errors import ResumeError
from blendtitan.state import PACE_KEY, STATE_KEY


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """After ``step`` steps the run had ``consumed_samples`` behind it; each step takes as many."""

    step: int = 0
    consumed_samples: int = 0
    global_batch_size: int

    def consumed_at(self, step: int) -> int:
        """Consumed samples after so many steps; below 0 before the first of this pace."""
        return self.consumed_samples + (step - self.step) * self.global_batch_size

    def step_at(self, consumed_samples: int) -> int:
        """Steps behind the run once it has consumed so many samples, the last one perhaps begun."""
        return self.step + (consumed_samples - self.consumed_samples) // self.global_batch_size

    def check(self, step: int, *, consumed_samples: int) -> None:
        """Check that a loader stands where this pace brings it by ``step``.

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


Paces = tuple[Pace, ...]
"""Those of a whole run, at growing steps, the first of them from step 0 on."""


def paces_of_state(state_dict: dict[str, Any]) -> Paces:
    """The paces that a loader's state was saved with; none if it was never aligned.

    Raises:
        ResumeError: They are damaged.
    """
    saved = json.loads(state_dict[STATE_KEY]).get(PACE_KEY, [])
    names = [field.name for field in fields(Pace)]
    is_right = isinstance(saved, list) and all(
        isinstance(each, dict) and all(type(each.get(name)) is int for name in names)
        for each in saved
    )
    steps = [each["step"] for each in saved] if is_right else []
    if not is_right or steps != sorted(set(steps)) or steps[:1] not in ([], [0]):
        raise ResumeError(
            f"the loader's state has {PACE_KEY} = {saved!r}, expected a list of whole numbers "
            f"under {names}, at growing steps from 0 on. The checkpoint is damaged: load an older "
            f"one."
        )
    return tuple(Pace(**{name: each[name] for name in names}) for each in saved)


def saved_paces(paces: Paces) -> dict[str, Any]:
    """What a loader's state says of them."""
    return {PACE_KEY: [asdict(pace) for pace in paces]} if paces else {}


def changed_at(paces: Paces, step: int, *, global_batch_size: int) -> Paces:
    """The paces of a run that goes on with so many samples a step after ``step``."""
    last = paces[-1]
    if global_batch_size == last.global_batch_size:
        return paces
    new = Pace(
        step=step,
        consumed_samples=last.consumed_at(step),
        global_batch_size=global_batch_size,
    )
    return (*(pace for pace in paces if pace.step < step), new)


def consumed_at(paces: Sequence[Pace], step: int) -> int:
    """Consumed samples after so many steps of a run."""
    return [pace for pace in paces if pace.step <= step][-1].consumed_at(step)


def step_of(paces: Sequence[Pace], slot: int) -> int:
    """The step that trains on a slot; a run's first step is 1."""
    pace = [pace for pace in paces if pace.consumed_samples <= slot][-1]
    return pace.step_at(slot) + 1
