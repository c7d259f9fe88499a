"""A second job in the folder of one that trains."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from blendtitan.claims.held import Holder
from tests.faults.test_refused_starts import contents
from tests.faults.training import TIMEOUT_S, FaultyJob, faulty_job, kill, wait_for
from tests.titan.conftest import tokenizer_path
from tests.titan.launched import Launched

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path, tokenizer_path: Path) -> FaultyJob:
    """A run that does not end by itself."""
    job = faulty_job(tmp_path, tokenizer_path)
    job.settings["training"]["steps"] = 100_000
    job.settings["lr_scheduler"]["total_steps"] = 100_000
    job.settings["blendcorpus"]["max_epochs"] = 0
    job.settings["checkpoint"]["interval"] = 3
    job.settings["checkpoint"]["keep_latest_k"] = 2
    return job


def second(job: FaultyJob) -> FaultyJob:
    """Another job with the same settings."""
    return FaultyJob(job.folder, job.settings, records=[job.folder / "of_the_first"])


def claim(job: FaultyJob) -> Path:
    (path,) = (job.folder / "out").glob("claim-*")
    return path


def begin(job: FaultyJob, processes: int) -> Launched:
    """Train until there is a checkpoint."""
    run = job.launch(processes=processes)
    assert wait_for(lambda: job.complete_steps(), run), run.output
    return run


@pytest.mark.parametrize("processes", [1, 2])
def test_it_is_refused_and_changes_nothing_and_the_first_goes_on(
    job: FaultyJob, processes: int
) -> None:
    """The error names the job that trains. ``fail`` checks that it comes once and last."""
    run = begin(job, processes)
    os.kill(job.pids()[0], signal.SIGSTOP)  # so that its files stay the same
    try:
        before = contents(job)
        output = second(job).fail(processes=processes)

        assert f"process {job.pids()[0]} on {os.uname().nodename}" in output
        assert contents(job) == before
    finally:
        os.kill(job.pids()[0], signal.SIGCONT)
    step = max(job.steps_begun())
    assert wait_for(lambda: max(job.steps_begun()) > step, run), run.output
    kill(job, run, None)


def test_commands_that_only_read_do_not_mind_the_claim(job: FaultyJob) -> None:
    run = begin(job, 1)
    held = claim(job)
    command = [sys.executable, "-m", "blendtitan.cli", "audit", str(job.folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert claim(job) == held
    kill(job, run, None)


def test_after_the_first_was_killed_it_resumes_at_once(job: FaultyJob) -> None:
    kill(job, begin(job, 2), None)
    abandoned = claim(job)
    following = second(job)
    run = following.launch()
    assert wait_for(lambda: following.steps_begun(), run), run.output

    assert min(following.steps_begun()) > 1
    assert f"taken over from process {job.pids()[0]} on {os.uname().nodename}" in run.output
    assert "waiting up to" not in run.output
    assert claim(job) != abandoned
    kill(following, run, None)


def test_a_job_of_another_machine_that_was_killed_is_waited_for(job: FaultyJob) -> None:
    job.settings["training"]["steps"] = 2
    (job.folder / "out").mkdir()
    path = job.folder / "out/claim-20260101-000000_0123abcd-4711-99.json"
    holder = Holder("node7", 4711, "Slurm job 12", "2026-01-01", silence_seconds=2, trains=True)
    path.write_text(json.dumps(asdict(holder)))
    output = job.run(processes=2)

    assert output.count("waiting up to 2 s for a sign of life from process 4711 on node7") == 1
    assert output.count("taken over from process 4711 on node7, Slurm job 12") == 1
    assert not list((job.folder / "out").glob("claim-*"))


@pytest.mark.parametrize("asynchronous", ["disabled", "async"])
def test_a_job_that_lost_its_claim_saves_no_other_checkpoint(
    job: FaultyJob, asynchronous: str
) -> None:
    job.settings["checkpoint"]["async_mode"] = asynchronous
    run = begin(job, 2)
    os.kill(job.pids()[0], signal.SIGSTOP)
    claim(job).unlink()
    before = job.complete_steps()
    os.kill(job.pids()[0], signal.SIGCONT)
    assert run.wait(TIMEOUT_S) == 1
    job.wait_until_gone()

    assert max(job.complete_steps()) <= max(before) + 3, "the one that was being saved at most"
    assert "blendtitan train: " in run.output
    assert "This job ends without another checkpoint." in run.output.splitlines()[-2]
    assert "Traceback (most recent call last)" not in run.output


def test_ctrl_c_and_errors_leave_no_claim(job: FaultyJob) -> None:
    run = begin(job, 2)
    assert claim(job)
    os.kill(run.process.pid or 0, signal.SIGINT)
    run.wait(TIMEOUT_S)
    job.wait_until_gone()

    assert not list((job.folder / "out").glob("claim-*"))
