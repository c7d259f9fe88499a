"""When a job's wall time ends."""

import os

from blendtitan.errors import ConfigError
from blendtitan.settings.guards import GuardSettings

_OURS = "BLENDTITAN_END_TIME"
_END_TIMES = (_OURS, "SLURM_JOB_END_TIME")
_EARLIEST = 10**9
"""Of a time, in 2001: less is a duration."""


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
