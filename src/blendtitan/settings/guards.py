"""``[guards]``: when a run ends before its last step."""

import math
from dataclasses import dataclass

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class GuardSettings:
    """``[guards]``: when a run ends before its last step."""

    save_on_signal: bool = True
    """On SIGTERM or SIGUSR1, and before the job's wall time ends, save a checkpoint and end with
    status 130. A second signal ends the run at once. False: the first one does."""

    wall_time_minutes: float | None = None
    """Wall time of the job, counted from the start of training. None: until
    ``SLURM_JOB_END_TIME`` or ``BLENDTITAN_END_TIME``, in seconds since 1970, if one is set."""

    margin_seconds: float = 120.0
    """Time before the end of the wall time at which the run saves and ends: at least two steps, a
    validation and a save."""

    max_nonfinite_losses: int = 3
    """End with an error after so many steps in a row whose loss is NaN or infinite. No checkpoint
    of such a step is saved. 0: leave both to TorchTitan, which checks the losses that it logs."""

    def __post_init__(self) -> None:
        check_at_least("guards.max_nonfinite_losses", self.max_nonfinite_losses, 0)
        for name in ("wall_time_minutes", "margin_seconds"):
            found = getattr(self, name)
            if found is not None and not (math.isfinite(found) and found >= 0):
                raise ConfigError(f"guards.{name} is {found}, expected a number of at least 0")
