"""A replica that is to end: the one that leads saves a checkpoint, the others do not."""

import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.settings.guards import GuardSettings
from blendtitan.stop_signals import STOP
from blendtitan.titan.guards import Guards, StoppedRun
from blendtitan.titan_ft.guards import ReplicaGuards
from tests.titan_ft.job import TIMEOUT_S, lighthouse, replicated_job, wait_for


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the guards see of a trainer of one process that got SIGTERM."""
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr(STOP, "received", "SIGTERM")
    monkeypatch.setattr(STOP, "is_noted_only", True)
    config = SimpleNamespace(
        guards=GuardSettings(),
        validator=SimpleNamespace(enable=False),
        training=SimpleNamespace(steps=9),
    )
    return SimpleNamespace(
        config=config,
        step=5,
        device=torch.device("cpu"),
        checkpointer=SimpleNamespace(leads=False),
        dataloader=None,
    )


def test_a_replica_that_does_not_lead_ends_without_saying_that_it_saves(
    trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(StoppedRun):
        ReplicaGuards(trainer).before_step()

    assert caplog.messages == ["SIGTERM: ends. The replica that leads saves the checkpoints."]
    assert trainer.step == 4


def test_within_an_attempt_at_a_step_nothing_is_saved(trainer: Any) -> None:
    """The loader is then where the replica reads, and the trainer has looked before."""
    with ReplicaGuards(trainer) as _:
        trainer.step = 9  # nothing to end after the last step


def test_the_one_that_leads_saves(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.checkpointer.leads = True
    saved: list[int] = []

    def stop(guards: Any) -> None:
        saved.append(trainer.step)
        raise StoppedRun

    monkeypatch.setattr(Guards, "_stop", stop)
    with pytest.raises(StoppedRun):
        ReplicaGuards(trainer).before_step()

    assert saved == [4]


@pytest.mark.slow
def test_after_a_signal_to_all_replicas_a_checkpoint_of_whole_steps_is_left(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    job = replicated_job(tmp_path, tokenizer_path)
    job.settings["checkpoint"]["interval"] = 1000
    job.settings["fault_tolerance"]["group_size"] = 2
    job.write_toml()
    with lighthouse(job):
        runs = [job.start(0), job.start(1)]
        wait_for(lambda: job.committed() >= 2, *runs)
        for run in runs:
            assert run.process.pid is not None
            os.kill(run.process.pid, signal.SIGTERM)

        assert [run.wait(TIMEOUT_S) for run in runs] == [130, 130], runs[0].output[-5000:]

    found = audit_run(Path(job.settings["job"]["dump_folder"]))
    check_proved(found)
    assert found[-1].stored.step >= 2
