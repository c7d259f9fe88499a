"""``[guards]``: when a run ends before its last step."""

import math
import os
from dataclasses import dataclass

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError

_OURS = "BLENDTITAN_END_TIME"
_END_TIMES = (_OURS, "SLURM_JOB_END_TIME")
_EARLIEST = 10**9
"""Of a time, in 2001: less is a duration."""


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


def job_end(settings: GuardSettings, *, started: float) -> tuple[float, str]:
    """When the run must end, in seconds since 1970, and what says so; infinity if nothing does.

    Args:
        settings: The run's.
        started: When training started, in seconds since 1970.

    Raises:
        ConfigError: The environment names a time that cannot be read.
    """
    ends: dict[str, float] = {}
    if settings.wall_time_minutes is not None:
        ends = {"guards.wall_time_minutes": started + 60 * settings.wall_time_minutes}
    elif settings.save_on_signal:
        ends = _ends_of_environment()
    name = min(ends, key=lambda name: ends[name], default=None)
    if name is None:
        return float("inf"), ""
    return ends[name] - settings.margin_seconds, f"{settings.margin_seconds:.0f} s before {name}"


def _ends_of_environment() -> dict[str, float]:
    given = {name: os.environ[name].strip() for name in _END_TIMES if os.environ.get(name)}
    ends = {
        name: float(text)
        for name, text in given.items()
        if text.isdecimal() and float(text) >= _EARLIEST
    }
    if _OURS in given.keys() - ends.keys():  # Slurm's may be 0
        raise ConfigError(
            f"{_OURS} is {given[_OURS]!r}, expected the time at which the job ends, in seconds "
            f"since 1970. An hour from now: $(($(date +%s) + 3600))"
        )
    return ends
