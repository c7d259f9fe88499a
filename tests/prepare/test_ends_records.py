"""The record of document ends, ``PREFIX.ends.json``, is written with a shard and goes with it."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blendtitan.prepare import engines, merge, records
from blendtitan.prepare.convert import convert_shard
from blendtitan.prepare.merge import merge as merge_shards
from blendtitan.prepare.tokenize import TokenizeConfig, tokenize
from blendtitan.storage.ends import find_document_ends
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.record_writer import record_ends, write_ends
from blendtitan.storage.records import DocumentEnds, read_ends
from blendtitan.storage.writer import ShardWriter, remove_shard
from tests.conftest import EOD, WriteShard
from tests.prepare.conftest import WriteJsonl
from tests.prepare.test_convert import write_tntidx

TOKENIZER_EOD = 2


def recorded(prefix: Path) -> DocumentEnds | None:
    """The document ends that a reader trusts."""
    stamp = file_signature(str(prefix))
    return stamp and read_ends(str(prefix), stamp)


def found(prefix: Path, eod_id: int) -> DocumentEnds:
    return find_document_ends(ShardIndex.open(prefix), eod_id, allowance=1 << 30)


# --- tokenize -----------------------------------------------------------------------------------


def test_tokenize_records_the_document_ends_of_the_shard(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path = write_jsonl("a.jsonl", ["hello", " ", "x" * 9])
    tokenize([path], tmp_path / "out", TokenizeConfig(tokenizer=tokenizer_path, job_bytes=20))
    ends = recorded(tmp_path / "out/a")

    assert ends is not None
    assert ends == found(tmp_path / "out/a", TOKENIZER_EOD)
    assert ends.num_eod == ends.num_documents == 3


def test_tokenize_run_again_changes_nothing(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, config = write_jsonl("a.jsonl", ["hello"]), TokenizeConfig(tokenizer=tokenizer_path)
    tokenize([path], tmp_path / "out", config)
    shard = [tmp_path / f"out/a{suffix}" for suffix in (".idx", ".bin", ".ends.json")]
    before = [(path.stat(), path.read_bytes()) for path in shard]
    tokenize([path], tmp_path / "out", config)

    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in shard] == [
        (stat.st_mtime_ns, content) for stat, content in before
    ]


def test_a_command_that_ends_before_the_record_leaves_no_record(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the record of the earlier shard, nor half a record."""
    path, output = write_jsonl("a.jsonl", ["hello"]), tmp_path / "out"
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))
    monkeypatch.setattr(records, "record_ends", lambda *_: None)
    # Only a copied process has the patch; where other tests left threads, a new one is started.
    monkeypatch.setattr(engines, "_process_context", lambda: multiprocessing.get_context("fork"))
    write_jsonl("a.jsonl", ["hello", "again"])
    tokenize([path], output, TokenizeConfig(tokenizer=tokenizer_path))

    assert not (output / "a.ends.json").exists()


def test_a_copied_output_is_finished_and_its_records_are_ignored(
    write_jsonl: WriteJsonl, tokenizer_path: Path, tmp_path: Path
) -> None:
    path, config = write_jsonl("a.jsonl", ["hello"]), TokenizeConfig(tokenizer=tokenizer_path)
    tokenize([path], tmp_path / "out", config)
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy/a.bin", (7, 7))
    tokenize([path], tmp_path / "copy", config)

    assert (tmp_path / "copy/a.ends.json").exists()
    assert recorded(tmp_path / "copy/a") is None


# --- merge --------------------------------------------------------------------------------------


@pytest.fixture
def sources(write_shard: WriteShard, tmp_path: Path) -> list[Path]:
    prefixes = [
        write_shard("in/web/a", [[5, EOD], [EOD]]),
        write_shard("in/web/b", [[], [6, 7, EOD]]),
    ]
    for prefix in prefixes:
        record_ends(prefix, EOD)
    return prefixes


def merged(tmp_path: Path) -> Path:
    merge_shards([tmp_path / "in"], tmp_path / "out", target_tokens=100)
    return tmp_path / "out/web/00000"


def test_a_merged_shard_has_the_sum_of_the_records(sources: list[Path], tmp_path: Path) -> None:
    ends = recorded(merged(tmp_path))

    assert ends == found(tmp_path / "out/web/00000", EOD)
    assert ends == DocumentEnds(EOD, 4, 4, 3, num_eod=3, num_begin=1)


def remove_record(prefix: Path) -> None:
    Path(f"{prefix}.ends.json").unlink()


def record_another_eod(prefix: Path) -> None:
    remove_record(prefix)
    record_ends(prefix, 7)


def touch(prefix: Path) -> None:
    os.utime(f"{prefix}.bin", (7, 7))


@pytest.mark.parametrize("change", [remove_record, record_another_eod, touch])
def test_a_merged_shard_has_no_record_if_a_source_lacks_a_matching_one(
    sources: list[Path], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(sources[1])

    assert not Path(f"{merged(tmp_path)}.ends.json").exists()


def test_the_record_of_a_source_that_changes_while_it_is_copied_is_not_used(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = merge.append_file

    def append_file(path: Path, target: object, **where: int) -> int:
        os.utime(path, (7, 7))
        return really(path, target, **where)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(merge, "append_file", append_file)

    assert not Path(f"{merged(tmp_path)}.ends.json").exists()


# --- every way in which a shard is replaced or removed ------------------------------------------


def test_a_new_shard_of_the_same_name_has_no_record_of_the_old_one(
    write_shard: WriteShard,
) -> None:
    prefix = write_shard("web", [[5, EOD]])
    record_ends(prefix, EOD)
    with ShardWriter.create(prefix, dtype=np.dtype("<u2")) as writer:
        writer.add_document(np.array([5, 6]))

    assert not Path(f"{prefix}.ends.json").exists()


def test_a_converted_shard_has_no_record_because_its_eod_is_not_known(
    write_shard: WriteShard, tmp_path: Path
) -> None:
    prefix = write_shard("new", [[5, EOD]])
    record_ends(prefix, EOD)
    convert_shard(write_tntidx(tmp_path / "old", [[3, 4]], [0, 1]), prefix)

    assert not Path(f"{prefix}.ends.json").exists()


def test_a_removed_shard_leaves_no_record(write_shard: WriteShard) -> None:
    prefix = write_shard("web", [[5, EOD]])
    record_ends(prefix, EOD)
    remove_shard(prefix)

    assert list(prefix.parent.iterdir()) == []


def test_a_shard_that_is_replaced_during_a_check_is_not_recorded(
    write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_shard("web", [[5, EOD]])

    def replace(index: ShardIndex, eod_id: int, *, allowance: int) -> DocumentEnds:
        ends = find_document_ends(index, eod_id, allowance=allowance)
        os.utime(write_shard("web", [[5, 6]]).with_suffix(".bin"), (7, 7))
        return ends

    monkeypatch.setattr("blendtitan.storage.record_writer.find_document_ends", replace)

    assert not record_ends(prefix, EOD)
    assert not Path(f"{prefix}.ends.json").exists()


def test_a_shard_that_disappears_is_not_recorded(write_shard: WriteShard) -> None:
    """As when two commands publish the same shard: no error, and the other command records it."""
    prefix = write_shard("web", [[5, EOD]])
    Path(f"{prefix}.idx").unlink()

    assert not record_ends(prefix, EOD)


def test_no_record_is_written_for_a_shard_replaced_before_it(
    write_shard: WriteShard,
) -> None:
    prefix = write_shard("web", [[5, EOD]])
    stamp = file_signature(str(prefix))
    assert isinstance(stamp, FileSignature)
    os.utime(f"{prefix}.idx", (7, 7))

    assert not write_ends(prefix, found(prefix, EOD), stamp)
