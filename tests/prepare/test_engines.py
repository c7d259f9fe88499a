"""Every engine with real processes, some of which are killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare import engines
from blendtitan.prepare.engines import LocalEngine, RayEngine, interrupt_postponed, started_engine
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.storage.list_forms import find_shards
from blendtitan.tokenizers import load_tokenizer
from tests.prepare.conftest import (
    KillingEncoder,
    WriteJsonl,
    planned_work,
    shard_files,
    undisturbed,
    write_texts,
)

JOB_BYTES = 200_000
MPIEXEC = Path(sys.executable).parent / "mpiexec"


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of many jobs that take seconds together, and a small one."""
    folder = tmp_path_factory.mktemp("text")
    text = Path(os.__file__).read_text(encoding="utf-8")
    write_texts(folder / "a/small.jsonl", ["small"])
    write_texts(folder / "b/large.jsonl", [text] * 250)
    return folder


@pytest.fixture(scope="module")
def whole(
    text_folder: Path, tokenizer_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    return undisturbed(text_folder, tokenizer_path, tmp_path_factory.mktemp("whole"))


def finished_jobs(output: Path) -> list[Path]:
    return list(output.rglob("*.parts/*.json"))


def wait_for_jobs(output: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(finished_jobs(output)) < count:
        assert time.monotonic() < deadline, "no job was finished"
        time.sleep(0.02)


def processes(*words: str) -> list[int]:
    """Ids of the processes that show all of these words."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if all(word in command for word in words):
                found.append(int(folder.name))
    return found


# --- local ------------------------------------------------------------------------------------


def test_a_killed_worker_is_an_error_and_no_hang(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    encoder = KillingEncoder(load_tokenizer(tokenizer_path))
    work = planned_work([write_jsonl("a.jsonl", ["a"])], tmp_path / "out", encoder)

    with pytest.raises(InputError, match=r"a worker process was killed.*fewer --workers"):
        LocalEngine(2).run(work)
    assert find_shards(tmp_path) == []


def test_a_process_with_threads_is_not_forked(tokenizer_path: Path, tmp_path: Path) -> None:
    """A lock that another thread holds would never be released in a fork."""
    text = write_texts(tmp_path / "text.jsonl", ["one", "two"])
    expected = undisturbed(text, tokenizer_path, tmp_path / "forked")
    thread = threading.Thread(target=(end := threading.Event()).wait)
    thread.start()
    found = undisturbed(text, tokenizer_path, tmp_path / "started")
    method = engines._process_context().get_start_method()
    end.set()
    thread.join()

    assert found == expected
    assert method == "spawn"


def test_a_plan_has_at_most_one_process_per_job() -> None:
    assert LocalEngine(8).num_workers(3) == 3
    assert LocalEngine().num_workers(10**6) >= 1
    assert RayEngine(8).num_workers(3) == 3
    assert RayEngine(2).num_workers(3) == 2


@pytest.fixture
def answered_interrupt() -> Generator[None]:
    """Let Ctrl-C raise, even if a shell started the tests in the background and disabled it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("answered_interrupt")
def test_an_interrupt_while_processes_start_is_handled_afterwards() -> None:
    """An interrupt during a fork would be lost, and the command would continue."""
    steps: list[str] = []

    def started() -> None:
        with interrupt_postponed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            steps.append("started")
        steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        started()
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["local", "ray", "mpi"])
def test_there_is_at_least_one_worker(name: str) -> None:
    with pytest.raises(ConfigError, match="workers is 0"), started_engine(name, workers=0):  # pyright: ignore
        pass


# --- Ray --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_on_this_machine() -> Generator[None]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("ray_on_this_machine")
def test_ray_workers_killed_at_random_moments_lose_nothing(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Ray restarts them, and others take over their claims."""
    output = tmp_path / "out"
    generator = random.Random(7)
    killed: list[int] = []
    ended = threading.Event()

    def kill_some() -> None:
        wait_for_jobs(output, 1)
        # One task may be killed three times before it is given up.
        while len(killed) < 3 and not ended.wait(generator.uniform(0.05, 0.4)):
            workers = processes("ray::do_work")
            if workers:
                killed.append(generator.choice(workers))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_some)
    killer.start()
    # The reference tier, which takes longer.
    config = TokenizeConfig(tokenizer=tokenizer_path, job_bytes=JOB_BYTES, tier="reference")
    counts = tokenize([text_folder], output, config, engine=RayEngine(2))
    ended.set()
    killer.join()

    assert killed
    assert shard_files(output) == whole
    assert sum(found.documents for found in counts.values()) == 251
    assert not list(output.rglob("*.claim"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("ray_on_this_machine")
def test_an_input_that_a_ray_worker_cannot_read_is_reported(
    tokenizer_path: Path, tmp_path: Path, write_jsonl: WriteJsonl
) -> None:
    write_jsonl("text/a.jsonl", ["good"])
    (tmp_path / "text/b.gz").write_bytes(b"not gzip")
    config = TokenizeConfig(tokenizer=tokenizer_path)

    with pytest.raises(InputError, match=r"b\.gz: the compressed data cannot be read"):
        tokenize([tmp_path / "text"], tmp_path / "out", config, engine=RayEngine(2))
    assert find_shards(tmp_path / "out") == [tmp_path / "out/a"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("ray_on_this_machine")
def test_a_ray_task_that_is_killed_repeatedly_is_an_error(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    encoder = KillingEncoder(load_tokenizer(tokenizer_path))
    work = planned_work([write_jsonl("a.jsonl", ["a"])], tmp_path / "out", encoder)

    with pytest.raises(InputError, match="a Ray worker was lost 4 times"):
        RayEngine(1).run(work)
    assert find_shards(tmp_path) == []


# --- MPI --------------------------------------------------------------------------------------


def started_with_mpi(
    num_ranks: int, text: Path, tokenizer_path: Path, output: Path
) -> subprocess.Popen[str]:
    command = [
        *(str(MPIEXEC), "-n", str(num_ranks), sys.executable, "-m", "blendtitan.cli"),
        *("tokenize", str(text), "--output", str(output), "--tokenizer", str(tokenizer_path)),
        *("--job-bytes", str(JOB_BYTES), "--engine", "mpi", "--tokenizer-tier", "reference"),
    ]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.slow
def test_three_mpi_ranks_make_the_same_shards(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    output = tmp_path / "out"

    process = started_with_mpi(3, text_folder, tokenizer_path, output)
    stdout, stderr = process.communicate(timeout=300)

    assert process.returncode == 0, stderr
    assert shard_files(output) == whole
    assert stdout.count("total") == 1


@pytest.mark.slow
def test_a_command_with_mpi_ranks_killed_at_random_moments_can_be_continued(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """MPI ends all processes when one is lost; the same command finishes the work."""
    output = tmp_path / "out"
    generator = random.Random(11)
    statuses: list[int] = []
    for _ in range(4):
        process = started_with_mpi(3, text_folder, tokenizer_path, output)
        time.sleep(generator.uniform(0.8, 2.0))
        ranks = set(processes(str(output), "-m\0blendtitan.cli")) - {process.pid}
        if ranks:
            os.kill(generator.choice(sorted(ranks)), signal.SIGKILL)
        process.communicate(timeout=120)
        statuses.append(process.returncode)
    again = started_with_mpi(3, text_folder, tokenizer_path, output)
    _, stderr = again.communicate(timeout=300)

    assert any(statuses)
    assert again.returncode == 0, stderr
    assert shard_files(output) == whole
    assert not list(output.rglob("*partial*"))


@pytest.mark.slow
def test_an_error_of_the_commanding_rank_ends_all(
    text_folder: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    process = started_with_mpi(3, text_folder, tmp_path / "no tokenizer", tmp_path / "out")
    _, stderr = process.communicate(timeout=120)

    assert process.returncode != 0
    assert stderr.count("no such file") == 1


def test_mpi_without_workers_is_an_error() -> None:
    pytest.importorskip("mpi4py")
    script = (
        "from blendtitan.prepare.engines import started_engine\n"
        "with started_engine('mpi', workers=None): pass"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "expected a coordinator and at least one worker: mpiexec -n 3" in done.stderr
