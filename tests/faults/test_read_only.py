"""Folders in which nobody may write."""

import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.dataset.build import read_catalog
from blendtitan.errors import ConfigError
from blendtitan.storage.catalog_bytes import encode_catalog
from tests.conftest import WriteBlend
from tests.faults.disks import read_only
from tests.faults.killing import tree
from tests.faults.shards import EOD, forget_eods, write_shards
from tests.faults.training import FaultyJob, faulty_job
from tests.titan.conftest import tokenizer_path

__all__ = ["tokenizer_path"]


@pytest.mark.parametrize("command", ["tokenize", "merge", "repair", "mix", "demo"])
def test_a_command_names_the_folder_it_may_not_write_to(
    command: str, tokenizer_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    write_shards(output if command == "repair" else tmp_path / "in", 2)
    if command == "repair":
        forget_eods(output)
    output.mkdir(exist_ok=True)
    (tmp_path / "text.jsonl").write_text('{"text": "a"}\n')
    words: dict[str, list[str | Path]] = {
        "tokenize": [tmp_path / "text.jsonl", "--output", output, "--tokenizer", tokenizer_path],
        "merge": [tmp_path / "in", "--output", output, "--target-tokens", "1e4"],
        "repair": [output, "--eod-id", str(EOD)],
        "mix": [tmp_path / "in", "--output", output / "list.txt"],
        "demo": ["--output", output],
    }
    before = tree(output)
    with read_only(output):
        done = subprocess.run(
            [sys.executable, "-m", "blendtitan.cli", command, *words[command]],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{output}" in done.stderr.splitlines()[-1]
    assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr
    assert tree(output) == before


def test_a_cache_folder_that_is_read_only_is_named_with_its_setting(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    config = write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path=tmp_path / "cache")

    with (
        read_only(tmp_path / "cache"),
        pytest.raises(ConfigError, match=r"data_cache_path is .*cache/catalog-\w+: cannot be writ"),
    ):
        read_catalog(config)


def test_a_catalog_that_is_kept_is_read_from_a_read_only_folder(
    write_blend: WriteBlend, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    config = write_blend({"web": (1.0, [500])}, seq_length=8, data_cache_path=tmp_path / "cache")
    kept = encode_catalog(read_catalog(config))

    with read_only(tmp_path / "cache"):
        assert encode_catalog(read_catalog(config)) == kept


@pytest.mark.slow
def test_training_reads_from_read_only_data_and_writes_nothing_there(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    job: FaultyJob = faulty_job(tmp_path / "data", tokenizer_path)
    job.settings["job"]["dump_folder"] = str(tmp_path / "out")
    job.settings["training"]["steps"] = 1
    job = FaultyJob(tmp_path, job.settings)
    before = tree(tmp_path / "data")
    with read_only(tmp_path / "data"):
        job.run()

    assert job.complete_steps() == [1]
    assert tree(tmp_path / "data") == before


@pytest.mark.slow
def test_a_run_whose_folder_is_read_only_ends_with_its_name(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    """Before the first step: nobody trains for an hour to find out."""
    job: FaultyJob = faulty_job(tmp_path, tokenizer_path)
    (tmp_path / "out").mkdir()
    with read_only(tmp_path / "out"):
        output = job.fail(processes=2)

    assert str(tmp_path / "out") in output
    assert "Read-only file system" in output or "Permission denied" in output
    assert not job.steps_begun()
