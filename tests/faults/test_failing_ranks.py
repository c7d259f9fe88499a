"""One rank fails while the others wait for it: all ranks end with its error."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.storage.reader import ShardIndex
from tests.faults import sabotage
from tests.faults.killing import wait_until
from tests.faults.training import TIMEOUT_S, FaultyJob, faulty_job
from tests.titan.conftest import tokenizer_path
from tests.titan.launched import Entry, Launched
from tests.titan.test_several_nodes import free_port

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path, tokenizer_path: Path) -> FaultyJob:
    return faulty_job(tmp_path, tokenizer_path)


@pytest.mark.parametrize("processes", [2, 4])
def test_all_ranks_end_with_the_error_of_rank_0_when_it_cannot_read_the_catalog(
    job: FaultyJob, processes: int
) -> None:
    """Only rank 0 reads the shards at the start, and no rank may wait for it forever.

    ``tests/titan/test_shared_catalog.py`` looks at the error of each rank.
    """
    os.truncate(job.folder / "web_1.bin", 8)
    job.settings["training"]["local_batch_size"] = 1
    output = job.fail(processes=processes)

    assert output.count("web_1.bin: found 8 bytes") == 1


@pytest.mark.parametrize(
    ("processes", "entry", "error"),
    [
        (4, sabotage.fails_between_broadcasts, "rank 0: RuntimeError: fails between broadcasts"),
        (2, sabotage.killed_at_start, "rank 0 was ended by SIGKILL."),
    ],
)
def test_rank_0_fails_while_the_others_wait_for_the_catalog(
    job: FaultyJob, processes: int, entry: Entry, error: str
) -> None:
    job.settings["training"]["local_batch_size"] = 1
    output = job.fail(processes=processes, entry=entry)

    assert error in output


def test_rank_0_hangs_until_the_others_time_out(job: FaultyJob) -> None:
    """Nobody knows whether it is slow or hangs: ``comm.init_timeout_seconds`` says so."""
    output = job.fail(
        "--comm.init_timeout_seconds", "3", processes=2, entry=sabotage.waits_for_ever
    )

    assert "Timed out" in output


def test_a_reading_thread_that_fails_on_one_rank_ends_both(job: FaultyJob) -> None:
    output = job.fail(processes=2, entry=sabotage.loses_a_thread)

    assert "rank 1: OSError: [Errno 5] the disk fails" in output


@pytest.mark.parametrize(
    ("log_freq", "losses"),
    [
        (1, "loss of step 3 is"),
        (4, "losses of steps 3 to 4 are"),
        (100, "losses of steps 3 to 5 are"),
    ],
)
def test_losses_that_are_not_finite_on_one_rank_end_both_and_are_not_saved(
    job: FaultyJob, log_freq: int, losses: str
) -> None:
    """At the first loss that is logged, or after three in a row. Resumes from an intact one.

    The error names the first such step, which may be before the one that is logged.
    """
    job.settings["metrics"]["log_freq"] = log_freq
    job.settings["training"]["steps"] = 20
    job.settings["checkpoint"]["keep_latest_k"] = 2
    output = job.fail(processes=2, entry=sabotage.diverges)

    assert f"blendtitan train: the {losses} not finite." in output
    assert re.search(r"blendtitan explain \S+ --around 3", output)
    assert job.complete_steps() == [2]
    job.run("--training.steps", "3", processes=2)
    assert set(job.steps_begun()) == {3}


def test_a_first_loss_that_is_not_finite_is_guarded_too(job: FaultyJob) -> None:
    output = job.fail(processes=2, entry=sabotage.diverges_at_once)

    assert "blendtitan train: the loss of step 1 is not finite." in output
    assert not job.complete_steps()


def test_without_an_agent_the_others_notice_that_rank_0_is_gone(job: FaultyJob) -> None:
    """As under srun and mpiexec, which start ranks and nothing else."""
    job.records.append(job.folder / "record")
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    ranks = [
        Launched.start_rank(
            ["--job.config_file", str(job.write_toml())],
            environment=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            record=job.records[-1],
            entry=sabotage.killed_at_start,
        )
        for rank in range(2)
    ]

    assert ranks[0].wait(TIMEOUT_S) == -signal.SIGKILL
    assert ranks[1].wait(TIMEOUT_S) > 0
    # Gloo's words depend on whether the kernel had something left to send.
    assert re.search(r"Connection (closed|reset) by peer|remote worker", ranks[1].output)


def started(text: Path, output: Path, tokenizer: Path, rank: int) -> subprocess.Popen[str]:
    words = ["tokenize", str(text), "--output", str(output), "--tokenizer", str(tokenizer)]
    words += ["--rank", str(rank), "--world-size", "2", "--workers", "1", "--job-bytes", "100000"]
    return subprocess.Popen(
        [sys.executable, "-m", "blendtitan.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("fault", ["killed", "in error"])
def test_tokenizing_needs_no_rank_0(tokenizer_path: Path, tmp_path: Path, fault: str) -> None:
    """Rank 0 writes the plan for people to read, and the last line; the rest is anyone's."""
    text, output = tmp_path / "text.jsonl", tmp_path / "out"
    text.write_text("".join(json.dumps({"text": f"w{n} " * 50}) + "\n" for n in range(2000)))
    no_tokenizer = tmp_path / "missing.model"
    first = started(text, output, no_tokenizer if fault == "in error" else tokenizer_path, 0)
    if fault == "killed":
        wait_until(lambda: output.exists() or first.poll() is not None)
        os.killpg(first.pid, signal.SIGKILL)
    other = started(text, output, tokenizer_path, 1)
    _, errors = first.communicate(timeout=TIMEOUT_S)
    _, others = other.communicate(timeout=TIMEOUT_S)

    assert first.returncode == (1 if fault == "in error" else -signal.SIGKILL), errors
    assert ("missing.model" in errors) == (fault == "in error")
    assert other.returncode == 0, others
    assert ShardIndex.open(output / "text").num_documents == 2000
