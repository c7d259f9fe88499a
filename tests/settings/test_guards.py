"""When a run must end. ``tests/faults/test_signals.py`` ends real ones."""

import pytest

from blendtitan.errors import ConfigError
from blendtitan.settings.guards import GuardSettings
from blendtitan.settings.wall_time import job_end


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_END_TIME", "BLENDTITAN_END_TIME"):
        monkeypatch.delenv(name, raising=False)


def end(**settings: float) -> tuple[float, str]:
    return job_end(GuardSettings(**settings), started=1_000_000_000)  # pyright: ignore


def test_without_a_wall_time_a_run_never_has_to_end() -> None:
    assert end() == (float("inf"), "")


def test_the_scheduler_tells_when_the_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier one, if a job script and Slurm both do."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000005000")

    assert end() == (1000004880, "120 s before SLURM_JOB_END_TIME")
    assert end(save_on_signal=False)[1] == ""
    monkeypatch.setenv("BLENDTITAN_END_TIME", "1000004000")
    assert end() == (1000003880, "120 s before BLENDTITAN_END_TIME")


def test_the_configured_wall_time_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Slurm has extended the time of a running job, or a variable cannot be read."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000000500")
    monkeypatch.setenv("BLENDTITAN_END_TIME", "tomorrow")

    found = end(wall_time_minutes=10, margin_seconds=60)
    assert found == (1000000540, "60 s before guards.wall_time_minutes")


@pytest.mark.parametrize("text", ["24:00:00", "2026-12-01 10:00", "86400", "-1", "1e9", "nan"])
def test_a_time_that_cannot_be_read_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duration is none either: the run would end after its first step."""
    monkeypatch.setenv("BLENDTITAN_END_TIME", text)

    with pytest.raises(ConfigError, match=f"BLENDTITAN_END_TIME is '{text}', expected the time"):
        end()


@pytest.mark.parametrize(("name", "text"), [("BLENDTITAN", ""), ("SLURM_JOB", "0")])
def test_a_variable_that_tells_nothing_does_not_end_the_run(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{name}_END_TIME", text)

    assert end() == (float("inf"), "")


@pytest.mark.parametrize(
    ("key", "value"),
    [("wall_time_minutes", -1.0), ("margin_seconds", float("nan")), ("max_nonfinite_losses", -1)],
)
def test_a_wrong_value_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"guards\.{key} is {value}"):
        GuardSettings(**{key: value})  # pyright: ignore[reportArgumentType]
