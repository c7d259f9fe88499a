"""Signals that end training."""

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


def check_ended(job: FaultyJob, output: str) -> None:
    """Without an error or a traceback, and with intact checkpoints."""
    job.wait_until_gone()
    assert "Traceback" not in output
    assert "blendtitan train: " not in output
    assert job.state(job.complete_steps()[-1])


def test_ctrl_c_ends_a_run_quietly_and_keeps_its_checkpoints(job: FaultyJob) -> None:
    run = job.launch(processes=2)
    wait_for(lambda: 3 in job.steps_begun(), run)
    assert run.process.pid is not None
    os.kill(run.process.pid, signal.SIGINT)

    assert run.wait(TIMEOUT_S) == 128 + signal.SIGINT
    check_ended(job, run.output)
    assert run.output.count("Interrupted. The same command resumes") == 1


def test_sigterm_ends_a_run_in_one_line_and_keeps_its_checkpoints(job: FaultyJob) -> None:
    """Slurm sends it before it kills."""
    run = job.launch()
    wait_for(lambda: 3 in job.steps_begun(), run)
    run.process.terminate()

    assert run.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    before, line = run.output.rsplit("blendtitan train: ", 1)
    assert line == "ended by SIGTERM. The same command resumes from the last checkpoint, if any.\n"
    check_ended(job, before)
    assert "Interrupted. The same command resumes" not in before


def test_ranks_do_not_outlive_a_torchrun_that_is_killed(job: FaultyJob) -> None:
    """They are sent nothing. Started again, the run would write its checkpoints twice."""
    run = job.launch()
    wait_for(lambda: job.steps_begun(), run)
    run.process.kill()
    run.wait(TIMEOUT_S)

    job.wait_until_gone()
    assert max(job.steps_begun()) < 1000
