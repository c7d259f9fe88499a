"""One job per run folder, with real processes; a claim of another machine is a file made here."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from blendtitan.claims.held import Holder, check_claim, hold_claim, release_claim
from blendtitan.errors import ConfigError, OutputError
from blendtitan.storage.atomic_files import Process
from tests.conftest import wait_until

# Claims each folder that it reads from its standard input, and releases the one before. Prints
# whether it got it; an empty line is answered when nothing is claimed.
JOB = """
import sys
from pathlib import Path
from blendtitan.claims.held import hold_claim, release_claim
from blendtitan.errors import ConfigError
for line in sys.stdin:
    release_claim()
    if folder := line.rstrip():
        try:
            hold_claim(Path(folder))
            print("holds", flush=True)
        except ConfigError as error:
            print("refused", error, flush=True)
    else:
        print("released", flush=True)
"""


@pytest.fixture(autouse=True)
def _released() -> Generator[None]:
    yield
    release_claim()


class Contender:
    """A job in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self) -> None:
        """Let it look for the claims of others."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.folder}\n")
        self.process.stdin.flush()

    def release(self) -> None:
        """Let it give its claim back, if it has one."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        while (line := self.answer()) != "released\n":
            assert line, "it ended"  # else the rest of an error

    def answer(self) -> str:
        """What came of it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self, number: signal.Signals | None = None) -> None:
        """End it, in good order or by a signal."""
        if number is not None:
            self.process.send_signal(number)
        self.process.communicate()


@contextmanager
def contenders(folder: Path, count: int) -> Iterator[list[Contender]]:
    jobs = [Contender(folder) for _ in range(count)]
    try:
        yield jobs
    finally:
        for job in jobs:
            job.end()


def claims(folder: Path) -> list[Path]:
    return sorted(folder.glob("claim-*"))


def claim_of_another_machine(folder: Path, *, silence_seconds: float = 0.5) -> Path:
    """What a job on another machine has written."""
    folder.mkdir(exist_ok=True)
    path = folder / "claim-20260101-000000_0123abcd-4711-99.json"
    holder = Holder("node7", 4711, "Slurm job 12", "2026-01-01", silence_seconds, trains=True)
    path.write_text(json.dumps(asdict(holder)))
    return path


def claim_of_a_killed_job(folder: Path) -> Path:
    """Its process id belongs to this process by now."""
    path = claim_of_another_machine(folder)
    machine, pid, started = Process.current().name.split("-")
    return path.rename(folder / f"claim-20260101-000000_{machine}-{pid}-{int(started) - 1}.json")


@contextmanager
def kept_fresh(path: Path) -> Iterator[None]:
    """A job that lives on another machine."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_claim_names_host_process_job_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    hold_claim(tmp_path)
    content = json.loads(claims(tmp_path)[0].read_text())

    assert content["host"] == os.uname().nodename
    assert content["pid"] == os.getpid()
    assert content["job"] == "Slurm job 4711"
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", content["since"])


def test_a_second_job_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with contenders(tmp_path, 2) as (first, second):
        first.start()
        assert first.answer() == "holds\n"
        before = claims(tmp_path)
        second.start()
        answer = second.answer()

        assert answer.startswith("refused")
        assert f"process {first.process.pid} on {os.uname().nodename}, since 20" in answer
        assert "Stop that job, wait until it has ended, or set another job.dump_folder" in answer
        assert claims(tmp_path) == before
        check_claim()


def test_a_job_that_was_killed_is_followed_at_once(tmp_path: Path) -> None:
    """Also if its process id belongs to another process by now."""
    with contenders(tmp_path, 1) as (first,):
        first.start()
        first.answer()
        first.end(signal.SIGKILL)
    left = {*claims(tmp_path), claim_of_a_killed_job(tmp_path)}
    hold_claim(tmp_path)

    assert len(left) == 2
    assert len(claims(tmp_path)) == 1
    assert not left & {*claims(tmp_path)}


def test_a_silent_claim_of_another_machine_is_taken_over_after_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = claim_of_another_machine(tmp_path)
    hold_claim(tmp_path)

    assert not path.exists()
    waiting, taken = (record.getMessage() for record in caplog.records)
    who = "process 4711 on node7, Slurm job 12, since 2026-01-01"
    assert waiting.endswith(
        f"waiting up to 0 s for a sign of life from {who}, which may have ended."
    )
    assert taken.endswith(f"taken over from {who}, which is gone.")


def test_a_job_that_lives_on_another_machine_is_not_disturbed(tmp_path: Path) -> None:
    path = claim_of_another_machine(tmp_path, silence_seconds=30)
    with kept_fresh(path), pytest.raises(ConfigError, match="process 4711 on node7, Slurm job 12"):
        hold_claim(tmp_path)

    assert claims(tmp_path) == [path]


def test_a_holder_gives_signs_of_life(tmp_path: Path) -> None:
    hold_claim(tmp_path, silence_seconds=0.1)
    path = claims(tmp_path)[0]
    first = path.stat().st_mtime_ns

    wait_until(lambda: path.stat().st_mtime_ns > first)


@pytest.mark.parametrize("leftover", ["nothing", "of a killed job", "of another machine"])
def test_of_jobs_that_start_at_once_exactly_one_trains(tmp_path: Path, leftover: str) -> None:
    with contenders(tmp_path, 4) as jobs:
        for attempt in range(5):
            folder = tmp_path / str(attempt)
            if leftover == "of another machine":
                claim_of_another_machine(folder)
            elif leftover == "of a killed job":
                claim_of_a_killed_job(folder)
            for job in jobs:
                job.folder = folder
                job.start()
            answers = sorted(job.answer().partition(" ")[0].strip() for job in jobs)

            assert answers == ["holds", "refused", "refused", "refused"]
            assert len(claims(folder)) == 1
            for job in jobs:
                job.release()
            assert claims(folder) == []


def test_a_job_whose_claim_was_taken_over_ends_before_it_writes(tmp_path: Path) -> None:
    """As after it was suspended for long. Its own signs of life do not bring the claim back."""
    hold_claim(tmp_path, silence_seconds=0.1)
    claims(tmp_path)[0].unlink()
    claim_of_another_machine(tmp_path)
    time.sleep(0.1)

    with pytest.raises(OutputError, match=r"was deleted.*claimed by process 4711 on node7"):
        check_claim()
    release_claim()
    assert len(claims(tmp_path)) == 1, "that of the other job"


def test_a_claim_goes_with_the_process(tmp_path: Path) -> None:
    """And with it folders that were made for it and hold nothing."""
    folder = tmp_path / "new/run"
    with contenders(folder, 1) as (job,):
        job.start()
        assert job.answer() == "holds\n"
        assert claims(folder)
    assert not folder.parent.exists()

    folder.mkdir(parents=True)
    hold_claim(folder)
    release_claim()
    assert folder.exists()


def test_a_claim_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = claim_of_another_machine(tmp_path)
    path.unlink()
    path.mkdir()

    with pytest.raises(OutputError, match=rf"{path}: cannot be read: .* delete it if there is no"):
        hold_claim(tmp_path)


def test_a_claim_that_was_just_being_written_counts(tmp_path: Path) -> None:
    """Its name says whose it is."""
    path = claim_of_another_machine(tmp_path, silence_seconds=30)
    path.write_text("")
    with kept_fresh(path), pytest.raises(ConfigError, match="process 4711 on an unknown host"):
        hold_claim(tmp_path)


def claim_of_a_replica(folder: Path, name: str) -> Path:
    """What a replica of a fault-tolerant job has written on another machine."""
    path = claim_of_another_machine(folder)
    content = json.loads(path.read_text()) | {"job": f"torchft job {name}"}
    path.write_text(json.dumps(content))
    return path


REPLICA_1 = "torchft job http://node0:29510 replica 1"


def test_replicas_of_one_job_share_a_folder(tmp_path: Path) -> None:
    other = claim_of_a_replica(tmp_path, "http://node0:29510 replica 0")
    hold_claim(tmp_path, job=REPLICA_1)

    assert other in claims(tmp_path)
    assert len(claims(tmp_path)) == 2


@pytest.mark.parametrize("name", ["http://node0:29510 replica 1", "http://node9:29510 replica 0"])
def test_a_replica_is_refused_beside_itself_and_beside_another_job(
    name: str, tmp_path: Path
) -> None:
    path = claim_of_a_replica(tmp_path, name)

    with kept_fresh(path), pytest.raises(ConfigError, match=f"torchft job {name}"):
        hold_claim(tmp_path, job=REPLICA_1)


def test_a_claim_without_its_content_is_read_again(tmp_path: Path) -> None:
    """Replicas that start at once see each other's claims before these are written."""
    path = claim_of_a_replica(tmp_path, "http://node0:29510 replica 0")
    content = path.read_text()
    path.write_text("")
    timer = threading.Timer(0.3, path.write_text, [content])
    timer.start()
    hold_claim(tmp_path, job=REPLICA_1)
    timer.join()

    assert path in claims(tmp_path)


def test_a_job_without_replicas_is_refused_beside_one(tmp_path: Path) -> None:
    path = claim_of_a_replica(tmp_path, "http://node0:29510 replica 0")

    with kept_fresh(path), pytest.raises(ConfigError, match="another job trains"):
        hold_claim(tmp_path)
