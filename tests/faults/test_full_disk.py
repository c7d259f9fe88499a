"""A disk that is full, on file systems of the tests' own."""

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blendtitan import BlendConfig
from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError, OutputError
from blendtitan.prepare.claims import Claims
from blendtitan.storage.catalog_bytes import encode_catalog
from blendtitan.storage.reader import ShardIndex
from tests.conftest import WriteBlend
from tests.faults.disks import Disk, small_disk
from tests.faults.killing import tree
from tests.faults.shards import EOD, forget_eods, write_shards
from tests.faults.training import faulty_job
from tests.prepare.conftest import WriteJsonl, tokenizer_path, write_jsonl

__all__ = ["tokenizer_path", "write_jsonl"]


TARGET = {"merge": ["--target-tokens", "1e9"], "mix": []}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "blendtitan.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def check_refused(done: subprocess.CompletedProcess[str], disk: Disk) -> None:
    """One error, which names a file and the disk."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    named = re.search(r"(\S+): cannot be written: No space left on device\. The disk mounted", last)
    assert named, done.stderr
    assert named[1].startswith(str(disk.folder))
    assert f"mounted at {disk.folder} has" in last


def check_whole(folder: Path) -> None:
    """No shard that a reader finds is half-written, and nothing half-written is left."""
    for idx in folder.rglob("*.idx"):
        ShardIndex.open(Path(str(idx).removesuffix(".idx")))
    left = [path for path in folder.rglob("*") if ".partial-" in path.name]
    assert not left + list(folder.rglob("*.claim"))


def test_tokenizing_on_a_full_disk_is_an_error_and_can_be_continued(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, disk: Disk
) -> None:
    text = Path(json.__file__).read_text(encoding="utf-8")
    for number in range(3):
        write_jsonl(f"text/{number}.jsonl", [text] * 40)
    words = ["tokenize", tmp_path / "text", "--tokenizer", tokenizer_path, "--workers", "2"]
    words += ["--tokenizer-tier", "reference", "--job-bytes", "100000"]
    output = disk.folder / "out"

    check_refused(command(*words, "--output", output), disk)
    check_whole(output)
    disk.resize(10**8)
    done = command(*words, "--output", output)
    assert done.returncode == 0, done.stderr
    found = tree(output)
    shutil.rmtree(output)
    command(*words, "--output", output)
    assert found == tree(output)


def test_merging_ends_with_the_file_and_the_disk_and_can_be_repeated(
    tmp_path: Path, disk: Disk
) -> None:
    write_shards(tmp_path / "in", 60)
    disk.resize(300_000)
    words = ["merge", tmp_path / "in", "--target-tokens", "40000", "--output"]

    check_refused(command(*words, disk.folder / "out"), disk)
    check_whole(disk.folder)
    disk.resize(10**7)
    assert command(*words, disk.folder / "out").returncode == 0
    assert command(*words, tmp_path / "whole").returncode == 0
    assert tree(disk.folder / "out") == tree(tmp_path / "whole")


def test_repairing_on_a_full_disk_is_an_error_and_can_be_continued(
    tmp_path: Path, disk: Disk
) -> None:
    folder = disk.folder / "tokens"
    write_shards(folder, 6)
    right = tree(folder)
    forget_eods(folder)
    old = tree(folder)
    used = sum(4096 * -(-len(content) // 4096) for content in old.values())
    # Of the three blocks of each new .idx, one shard's fit.
    disk.resize(used + 4 * 4096)

    check_refused(command("repair", folder, "--eod-id", str(EOD)), disk)
    for name, content in tree(folder).items():
        assert content in (old[name.removesuffix(".before-repair")], right.get(name))
    assert not list(folder.rglob("*.partial-*"))
    disk.resize(10**7)
    assert command("repair", folder, "--eod-id", str(EOD)).returncode == 0
    assert right.items() <= tree(folder).items()


@pytest.mark.parametrize("name", ["merge", "mix"])
def test_a_file_that_may_not_grow_is_named(name: str, tmp_path: Path) -> None:
    """A limit on the size of files, or a quota: what needs no disk of its own to be tested."""
    write_shards(tmp_path / "in", 6)
    output = tmp_path / "out" / ("list.txt" if name == "mix" else "")
    words = [name, str(tmp_path / "in"), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "blendtitan.cli", *words, *TARGET[name]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )

    assert done.returncode == 1
    assert f"{tmp_path}/out/" in done.stderr
    assert "cannot be written: File too large. The disk mounted" in done.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def fill(disk: Disk) -> Path:
    """Take all the room there is; the file to delete to have it back."""
    ballast = disk.folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_a_mix_leaves_the_old_file_list(tmp_path: Path, disk: Disk) -> None:
    write_shards(tmp_path / "in", 2)
    path = disk.folder / "list.txt"
    assert command("mix", tmp_path / "in", "--output", path).returncode == 0
    old = path.read_text()
    write_shards(tmp_path / "in", 3)
    ballast = fill(disk)

    check_refused(command("mix", tmp_path / "in", "--output", path), disk)
    assert path.read_text() == old
    assert not list(disk.folder.glob("*.partial-*"))
    ballast.unlink()
    assert command("mix", tmp_path / "in", "--output", path).returncode == 0
    assert "corpus2" in path.read_text()


def test_a_catalog_that_cannot_be_kept_is_an_error_that_names_the_setting(
    write_blend: WriteBlend, disk: Disk
) -> None:
    config: BlendConfig = write_blend(
        {"web": (1.0, [500])}, seq_length=8, data_cache_path=disk.folder / "cache"
    )
    (disk.folder / "cache").mkdir()
    ballast = fill(disk)

    with pytest.raises(ConfigError, match=r"data_cache_path is .*cannot be written: No space left"):
        read_catalog(config)
    assert not list((disk.folder / "cache").iterdir())
    ballast.unlink()
    assert encode_catalog(read_catalog(config)) == encode_catalog(read_catalog(config))


def test_a_claim_that_cannot_be_written_is_not_left_behind(disk: Disk) -> None:
    """Nobody could tell whose it is, and all would wait for it."""
    fill(disk)
    path = disk.folder / "job.claim"

    with (
        pytest.raises(OutputError, match=r"job\.claim: cannot be written"),
        Claims().claimed(path),
    ):
        pass
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("async_mode", ["disabled", "async"])
def test_a_checkpoint_that_does_not_fit_ends_the_run_and_the_one_before_is_used(
    async_mode: str, tmp_path: Path, tokenizer_path: Path, disk: Disk
) -> None:
    """What was written of it is no checkpoint."""
    job = faulty_job(tmp_path, tokenizer_path)
    job.settings["job"]["dump_folder"] = str(disk.folder / "out")
    job.settings["checkpoint"]["async_mode"] = async_mode
    job.settings["training"]["steps"] = 4 if async_mode == "disabled" else 5
    disk.resize(33_000_000)  # room for one of 21 MB and the logs
    output = job.fail()
    disk.resize(1_000_000_000)

    assert f"{disk.folder}/out/checkpoint/step-4: cannot be written" in output
    assert f"The disk mounted at {disk.folder} has" in output
    assert job.complete_steps() == [2]
    output = job.run()
    assert "step-4: is incomplete" in output
    assert min(job.steps_begun()) == 3
    assert {2, 4} <= set(job.complete_steps())
