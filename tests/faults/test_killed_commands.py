"""``tokenize``, ``merge``, ``convert`` and ``repair``, killed at random moments and run again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendtitan.storage.reader import ShardIndex
from tests.faults.killing import KilledCommand, num_kills, tree
from tests.faults.shards import EOD, forget_eods, write_shards
from tests.prepare.conftest import WriteJsonl, tokenizer_path, write_jsonl

__all__ = ["tokenizer_path", "write_jsonl"]

pytestmark = pytest.mark.slow

KILLS = 3


def kill_often(
    command: KilledCommand, output: Path, whole: dict[str, bytes], check_shards: Callable[[], None]
) -> None:
    """Kill a command that writes an empty output, and compare what it has made in the end."""

    def begin_anew() -> None:
        assert tree(output) == whole
        shutil.rmtree(output)
        output.mkdir()

    begin_anew()
    command.kill_at_random_moments(num_kills(KILLS), after_kill=check_shards, after_end=begin_anew)
    command.run()
    assert tree(output) == whole


def test_tokenizing_killed_at_random_moments_ends_with_the_same_files(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    """Shards, records and catalog; in between, whoever sees an ``.idx`` can read the shard."""
    text = Path(os.__file__).read_text(encoding="utf-8")
    for number in range(4):
        write_jsonl(f"text/{number}.jsonl", [text] * 4)
    write_jsonl("text/large.jsonl", [text] * 40)
    output = tmp_path / "out"
    command = KilledCommand(
        *("tokenize", tmp_path / "text", "--output", output, "--tokenizer", tokenizer_path),
        *("--tokenizer-tier", "reference", "--job-bytes", "100000"),
        output=output,
    )
    command.run_and_measure()
    # The plan is of what was left to do when the command was started last.
    whole = tree(output)

    def check_shards() -> None:
        for idx in output.rglob("*.idx"):
            for path in (idx, idx.with_suffix(".bin")):
                assert path.read_bytes() == whole[str(path.relative_to(output))]

    kill_often(command, output, whole, check_shards)


def test_merging_killed_at_random_moments_ends_with_the_same_files(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    write_shards(source, 150)
    output.mkdir()
    command = KilledCommand(
        *("merge", source, "--output", output, "--target-tokens", "7000"), output=output
    )
    command.run_and_measure()
    whole = tree(output)

    def check_shards() -> None:
        for idx in output.rglob("*.idx"):
            ShardIndex.open(Path(str(idx)[: -len(".idx")]))
            assert Path(f"{str(idx)[: -len('.idx')]}.bin").read_bytes()

    kill_often(command, output, whole, check_shards)


def test_converting_killed_at_random_moments_ends_with_the_same_files(tmp_path: Path) -> None:
    """Finished shards are kept, and unfinished ones are made again."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(150):
        rows = [[*range(3, 3 + number + row), EOD] for row in range(40)]
        pq.write_table(pa.table({"input_ids": rows}), source / f"{number}.parquet")
    output.mkdir()
    command = KilledCommand("convert", source, "--output", output, output=output)
    command.run_and_measure()
    whole = tree(output)

    def check_shards() -> None:
        for idx in output.rglob("*.idx"):
            for path in (idx, idx.with_suffix(".bin"), idx.with_suffix(".docs.parquet")):
                assert path.read_bytes() == whole[str(path.relative_to(output))]

    kill_often(command, output, whole, check_shards)


def test_repairing_killed_at_random_moments_ends_with_the_same_files(tmp_path: Path) -> None:
    """At any moment a shard has its old ``.idx`` or the right one, and always the same tokens."""
    folder, damaged = tmp_path / "tokens", tmp_path / "damaged"
    write_shards(folder, 100)
    right = tree(folder)
    forget_eods(folder)
    old = tree(folder)
    shutil.copytree(folder, damaged)
    command = KilledCommand("repair", folder, "--eod-id", str(EOD), output=folder)
    command.run_and_measure()
    whole = tree(folder)

    def check_shards() -> None:
        for name, content in tree(folder).items():
            if ".partial-" not in name:
                kept = name.removesuffix(".before-repair")
                assert content == old[kept] or (name == kept and content == right[name])

    def begin_anew() -> None:
        assert tree(folder) == whole
        shutil.rmtree(folder)
        shutil.copytree(damaged, folder)

    begin_anew()
    command.kill_at_random_moments(num_kills(KILLS), after_kill=check_shards, after_end=begin_anew)
    command.run()
    assert tree(folder) == whole
    assert right.items() <= whole.items()
