"""How many samples a run's steps take: what tells another global batch size from a wrong place."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from blendtitan.errors import ResumeError
from blendtitan.state import PACE_KEY, STATE_KEY


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """After ``step`` steps the run had ``consumed_samples`` behind it; each step takes as many."""

    step: int = 0
    consumed_samples: int = 0
    global_batch_size: int

    @classmethod
    def of_state(cls, state_dict: dict[str, Any]) -> Self | None:
        """The pace that a loader's state was saved with. None: it was never aligned.

        Raises:
            ResumeError: It is damaged.
        """
        saved = json.loads(state_dict[STATE_KEY]).get(PACE_KEY)
        if saved is None:
            return None
        names = [field.name for field in fields(cls)]
        if not isinstance(saved, dict) or any(type(saved.get(name)) is not int for name in names):
            raise ResumeError(
                f"the loader's state has {PACE_KEY} = {saved!r}, expected whole numbers under "
                f"{names}. The checkpoint is damaged: load an older one."
            )
        return cls(**{name: saved[name] for name in names})

    def added_to(self, state_dict: dict[str, str]) -> dict[str, str]:
        """A loader's state with this pace in it."""
        state = json.loads(state_dict[STATE_KEY]) | {PACE_KEY: asdict(self)}
        return state_dict | {STATE_KEY: json.dumps(state)}

    def consumed_at(self, step: int) -> int:
        """Consumed samples after so many steps; below 0 before the first of this pace."""
        return self.consumed_samples + (step - self.step) * self.global_batch_size

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

    def changed_at(self, step: int, *, global_batch_size: int) -> "Pace":
        """The pace of a run that goes on with another global batch size after ``step``."""
        if global_batch_size == self.global_batch_size:
            return self
        return Pace(
            step=step,
            consumed_samples=self.consumed_at(step),
            global_batch_size=global_batch_size,
        )
