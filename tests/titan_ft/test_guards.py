"""A replica that is to end: the one that leads saves a checkpoint, the others do not."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blendtitan.claims.held import CLAIMS
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.start.launch import INTERRUPTED
from tests.titan_ft.job import TIMEOUT_S, kill, lighthouse, replicated_job, wait_for

pytestmark = pytest.mark.slow


def test_only_the_replica_that_leads_says_that_it_saves(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    """Another one ends without a checkpoint of its own, and the rest of the job trains on."""
    job = replicated_job(tmp_path, tokenizer_path, group_size=2)
    job.settings["checkpoint"]["interval"] = 10**6
    job.write_toml()
    folder = Path(job.settings["job"]["dump_folder"])
    with lighthouse(job):
        first, second = runs = [job.start(0), job.start(1)]
        wait_for(lambda: "2 of 2 replicas take part" in second.output, *runs)
        at = job.committed()
        wait_for(lambda: job.committed() > at, *runs)
        second.process.terminate()

        assert second.wait(TIMEOUT_S) == INTERRUPTED, second.output[-5000:]
        assert "Received SIGTERM: this replica ends after step " in second.output
        assert "saving a checkpoint" not in second.output
        at = job.committed()
        wait_for(lambda: job.committed() > at, first)
        first.process.terminate()

        assert first.wait(TIMEOUT_S) == INTERRUPTED, first.output[-5000:]
        (saved,) = folder.glob("checkpoint/step-*/.metadata")
        step = int(saved.parent.name.removeprefix("step-"))
        assert f"Received SIGTERM: saving a checkpoint of step {step} before" in first.output
        assert step >= at
        assert not list(folder.glob(CLAIMS))


@pytest.mark.parametrize("least", [1, 2])
def test_after_a_signal_to_all_replicas_a_checkpoint_of_whole_steps_is_left(
    least: int, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Also if one of them already waits for the next step, which the other one will not make."""
    job = replicated_job(tmp_path, tokenizer_path, group_size=2, min_replica_size=least)
    job.settings["checkpoint"]["interval"] = 1000
    job.write_toml()
    with lighthouse(job):
        runs = [job.start(0), job.start(1)]
        wait_for(lambda: job.committed() >= 2, *runs)
        for run in runs:
            run.process.terminate()

        assert [run.wait(TIMEOUT_S) for run in runs] == [INTERRUPTED, INTERRUPTED], runs[0].output[
            -5000:
        ]

    found = audit_run(Path(job.settings["job"]["dump_folder"]))
    check_proved(found)
    assert found[-1].stored.step >= 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_replica_that_waits_for_others_ends_at_once_after_a_signal(
    processes: int, tokenizer_path: Path, tmp_path: Path
) -> None:
    """The one that is left takes part alone, which is too few, and saves the checkpoint."""
    job = replicated_job(tmp_path, tokenizer_path, group_size=2, min_replica_size=2)
    job.processes = processes
    job.settings["checkpoint"]["interval"] = 1000
    job.write_toml()
    with lighthouse(job):
        first, second = runs = [job.start(0), job.start(1)]
        wait_for(lambda: job.committed() >= 2, *runs)
        kill(first)
        wait_for(lambda: "waits for other replicas: 1 replica takes part" in second.output, second)
        began, committed = time.monotonic(), job.committed()
        second.process.terminate()

        assert second.wait(TIMEOUT_S) == INTERRUPTED, second.output[-5000:]
        assert time.monotonic() - began < 20
    found = audit_run(Path(job.settings["job"]["dump_folder"]))
    check_proved(found)
    assert found[-1].stored.step >= committed


def test_a_replica_that_waits_for_an_answer_of_the_lighthouse_ends_at_once_after_a_signal(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    """This lighthouse never answers a single replica."""
    job = replicated_job(tmp_path, tokenizer_path, group_size=2)
    job.settings["checkpoint"]["interval"] = 1000
    job.write_toml()
    with lighthouse(job, min_replicas=2):
        first, second = runs = [job.start(0), job.start(1)]
        wait_for(lambda: job.committed() >= 2, *runs)
        kill(second)
        time.sleep(3)  # the step is given up within that time
        first.process.terminate()

        assert first.wait(30) == INTERRUPTED, first.output[-5000:]
    check_proved(audit_run(Path(job.settings["job"]["dump_folder"])))


def test_replicas_that_lost_their_lighthouse_end_with_an_error(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    job = replicated_job(tmp_path, tokenizer_path, group_size=2)
    program = Path(sys.executable).with_name("torchft_lighthouse")
    with socket.create_server(("", 0)) as free, lighthouse(job):
        port = free.getsockname()[1]
        free.close()
        words = [program, "--bind", f"[::]:{port}", "--min_replicas", "1"]
        server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        job.lighthouse = f"http://localhost:{port}"
        runs = [job.start(0), job.start(1)]
        try:
            wait_for(lambda: job.committed() >= 2, *runs)
        finally:
            server.kill()
            server.wait()

        assert [run.wait(TIMEOUT_S) for run in runs] == [1, 1], runs[0].output[-5000:]
        assert f"no lighthouse answers. Check the lighthouse at {job.lighthouse}" in runs[0].output
