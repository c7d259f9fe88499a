"""Signals that end training, under torchrun as users start it."""

import os
import signal
from pathlib import Path

import pytest

from tests.faults.training import TIMEOUT_S, FaultyJob, faulty_job, wait_for
from tests.titan.conftest import tokenizer_path

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path, tokenizer_path: Path) -> FaultyJob:
    job = faulty_job(tmp_path, tokenizer_path)
    job.settings["training"]["steps"] = 1000
    job.settings["blendcorpus"]["max_epochs"] = 0
    job.settings["checkpoint"]["keep_latest_k"] = 2
    return job


@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_run_that_is_asked_to_end_ends_quietly_and_keeps_its_checkpoints(
    job: FaultyJob, number: int, processes: int
) -> None:
    """The one traceback is torchrun's. SIGTERM is what Slurm sends before it kills."""
    run = job.start_torchrun(processes=processes)
    wait_for(lambda: 3 in job.steps_begun())
    os.kill(run.pid, number)
    output, _ = run.communicate(timeout=TIMEOUT_S)

    assert run.returncode != 0
    job.wait_until_gone()
    assert output.count("Traceback") == 1
    assert "KeyboardInterrupt" not in output
    assert output.count("Interrupted. The same command resumes") == (number == signal.SIGINT)
    assert job.state(job.complete_steps()[-1])


def test_ranks_do_not_outlive_a_torchrun_that_is_killed(job: FaultyJob) -> None:
    """They are sent nothing. Started again, the run would write its checkpoints twice."""
    run = job.start_torchrun()
    wait_for(lambda: job.steps_begun())
    run.kill()
    run.communicate()

    job.wait_until_gone()
    assert max(job.steps_begun()) < 1000
