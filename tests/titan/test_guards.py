"""When a run must end. ``tests/faults/test_signals.py`` ends real ones."""

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.guards import GuardSettings
from blendtitan.stop_signals import STOP
from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

from blendtitan.titan.guards import job_end  # noqa: E402


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_END_TIME", "BLENDTITAN_END_TIME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_wall_time_a_run_never_has_to_end() -> None:
    assert job_end(GuardSettings()) == (float("inf"), "")


def test_the_scheduler_tells_when_the_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "5000")

    assert job_end(GuardSettings()) == (4880, "120 s before SLURM_JOB_END_TIME")
    assert job_end(GuardSettings(save_on_signal=False))[1] == ""


def test_the_configured_wall_time_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Slurm has extended the time of a running job."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", "5000")
    settings = GuardSettings(wall_time_minutes=10, margin_seconds=60)

    assert job_end(settings) == (STOP.started + 540, "60 s before guards.wall_time_minutes")


@pytest.mark.parametrize(
    ("key", "value"),
    [("wall_time_minutes", -1.0), ("margin_seconds", float("nan")), ("max_nonfinite_losses", -1)],
)
def test_a_wrong_value_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"guards\.{key} is {value}"):
        GuardSettings(**{key: value})  # pyright: ignore[reportArgumentType]
