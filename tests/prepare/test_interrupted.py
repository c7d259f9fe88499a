"""Real processes, ended in the middle of their work."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan.storage.list_forms import find_shards
from tests.prepare.conftest import shard_files, undisturbed, write_texts

JOB_BYTES = 100_000


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that takes seconds, in many jobs, and more files than processes."""
    folder = tmp_path_factory.mktemp("text")
    text = Path(os.__file__).read_text(encoding="utf-8")
    for number in range(5):
        write_texts(folder / f"{number}.jsonl", [text] * 5)
    write_texts(folder / "large.jsonl", [text] * 120)
    return folder


def started(text: Path, tokenizer_path: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """A command in a process group of its own."""
    words = ["tokenize", str(text), "--output", str(output), "--tokenizer", str(tokenizer_path)]
    words += ["--tokenizer-tier", "reference", "--job-bytes", str(JOB_BYTES), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "blendtitan.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests were started in the background of a shell, SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished_jobs(output: Path) -> list[Path]:
    """The manifest of each finished job of the large file."""
    return list(output.glob(".blendtitan/large.parts/*.json"))


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def whole(
    large_folder: Path, tokenizer_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    return undisturbed(large_folder, tokenizer_path, tmp_path_factory.mktemp("whole"))


def test_a_killed_command_leaves_no_process_and_can_be_continued(
    large_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """SIGKILL of the parent alone: a worker that waited for it would never end."""
    output = tmp_path / "out"
    process = started(large_folder, tokenizer_path, output)
    wait_until(lambda: len(finished_jobs(output)) >= 3)
    process.kill()
    process.communicate()
    wait_until(lambda: group_is_gone(process.pid))
    finished = finished_jobs(output)
    for manifest in finished:
        # A space that JSON does not care for, and that a job that is done again would not leave.
        manifest.write_bytes(manifest.read_bytes() + b" ")

    assert output / "large" not in find_shards(output)
    again = started(large_folder, tokenizer_path, output)
    again.communicate()
    assert again.returncode == 0
    assert shard_files(output) == whole
    record = (output / ".blendtitan/large.jsonl").read_text().splitlines()
    assert sum(line.endswith(" ") for line in record) == len(finished)


@pytest.mark.slow
def test_commands_killed_at_random_moments_end_with_the_same_shards(
    large_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    generator = random.Random(5)
    output = tmp_path / "out"
    for _ in range(8):
        process = started(large_folder, tokenizer_path, output)
        time.sleep(generator.uniform(0.3, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # The first commands may be killed before they make the folder.
        for prefix in find_shards(output) if output.exists() else ():
            # A shard may miss its .idx, never have one that is not its own.
            name = str(prefix.relative_to(output))
            if Path(f"{prefix}.idx").exists():
                assert Path(f"{prefix}.bin").read_bytes() == whole[f"{name}.bin"]
    process = started(large_folder, tokenizer_path, output)
    process.communicate()

    assert process.returncode == 0
    assert shard_files(output) == whole
    assert not list(output.rglob("*partial*"))


def test_a_part_damaged_by_a_power_cut_is_written_again(
    large_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Parts are not flushed to disk one by one, so their content may be gone."""
    output = tmp_path / "out"
    process = started(large_folder, tokenizer_path, output)
    wait_until(lambda: len(finished_jobs(output)) >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for part in output.glob(".blendtitan/*.parts/*.json"):
        tokens = part.with_suffix(".tokens")
        tokens.write_bytes(bytes(tokens.stat().st_size))

    again = started(large_folder, tokenizer_path, output)
    again.communicate()

    assert again.returncode == 0
    assert shard_files(output) == whole


def test_an_interrupted_command_cleans_up_and_prints_one_line(
    large_folder: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Ctrl-C in a terminal is sent to all processes of the group."""
    output = tmp_path / "out"
    process = started(large_folder, tokenizer_path, output)
    wait_until(lambda: len(finished_jobs(output)) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 130
    last = "blendtitan tokenize: interrupted. The same command resumes from there."
    assert stderr.splitlines()[-1] == last
    assert "Traceback" not in stderr
    assert not list(output.rglob("*partial*"))
    assert not list(output.rglob("*.claim"))


def test_one_of_four_ranks_may_be_killed(
    large_folder: Path, tokenizer_path: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """The others take over its claims, and all of them report that everything is done."""
    output = tmp_path / "out"
    ranks = [
        started(
            *(large_folder, tokenizer_path, output, "--workers", "1"),
            *("--rank", str(rank), "--world-size", "4"),
        )
        for rank in range(4)
    ]
    wait_until(lambda: len(finished_jobs(output)) >= 3)
    os.killpg(ranks[1].pid, signal.SIGKILL)
    outputs = [rank.communicate(timeout=120) for rank in ranks]

    assert [rank.returncode for rank in ranks] == [0, -signal.SIGKILL, 0, 0], outputs
    assert shard_files(output) == whole
    assert ["total" in stdout for stdout, _ in outputs] == [True, False, False, False]
    assert not list(output.rglob("*.claim"))
