"""The record beside a shard: which tokenizer made it, and never that of another shard."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan.errors import CorruptShardError, MissingShardError, OutputError
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.record_files import TokenizerRecord, read_record, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.storage.writer import ShardWriter, remove_partials, remove_shard

TOKENIZER = TokenizerIdentity(
    hash="1:0123456789abcdef",
    name="llama/tokenizer.json",
    kind="huggingface",
    vocab_size=9,
    eod_id=2,
)
OTHER = replace(TOKENIZER, hash="1:fedcba9876543210", name="qwen/tokenizer.json")


def write(prefix: Path, tokenizer: TokenizerIdentity | None) -> None:
    with ShardWriter.create(prefix, dtype=np.dtype("<u2"), tokenizer=tokenizer) as writer:
        writer.add_document(np.array([5, 6, 2]))
        writer.add_document(np.array([7, 2]))


def test_a_shard_is_written_with_its_record(tmp_path: Path) -> None:
    write(tmp_path / "a", TOKENIZER)

    assert read_record(tmp_path / "a") == TokenizerRecord(TOKENIZER, documents=2, tokens=5)
    assert find_shards(tmp_path) == [tmp_path / "a"]


def test_a_shard_of_an_unknown_tokenizer_has_no_record(tmp_path: Path) -> None:
    write(tmp_path / "a", TOKENIZER)
    write(tmp_path / "a", None)

    assert read_record(tmp_path / "a") is None


def test_a_replaced_shard_is_never_seen_with_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the process is killed, an ``.idx`` has the record of its own tokens."""
    write(tmp_path / "a", TOKENIZER)
    seen: list[str] = []
    really_replace = Path.replace

    def replace_and_look(self: Path, target: Path) -> Path:
        if (tmp_path / "a.idx").exists():
            record = read_record(tmp_path / "a")
            seen.append(record.tokenizer.name if record else "none")
        return really_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_and_look)
    write(tmp_path / "a", OTHER)
    record = read_record(tmp_path / "a")

    assert seen == []
    assert record == TokenizerRecord(OTHER, documents=2, tokens=5)


def test_a_full_disk_leaves_the_old_shard_and_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", TOKENIZER)

    def full(record: TokenizerRecord) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blendtitan.storage.writer.encode_record", full)
    with pytest.raises(OutputError, match=r"a\.tokenizer\.json: cannot be written: No space"):
        write(tmp_path / "a", OTHER)

    assert read_record(tmp_path / "a") == TokenizerRecord(TOKENIZER, documents=2, tokens=5)
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.idx", "a.tokenizer.json"]


def test_a_deleted_shard_takes_its_record_along(tmp_path: Path) -> None:
    write(tmp_path / "a", TOKENIZER)
    left = tmp_path / "a.tokenizer.json.partial-0123-45"  # of a process that was killed long ago
    left.touch()
    os.utime(left, (1, 1))
    remove_partials(tmp_path / "a")
    remove_shard(tmp_path / "a")

    assert os.listdir(tmp_path) == []


def test_a_record_does_not_describe_another_programs_shard(tmp_path: Path) -> None:
    record = TokenizerRecord(TOKENIZER, documents=2, tokens=5)

    assert record.describes(documents=2, tokens=5)
    assert not record.describes(documents=2, tokens=6)
    assert not record.describes(documents=3, tokens=5)


def test_unknown_keys_are_left_to_later_releases(tmp_path: Path) -> None:
    record = TokenizerRecord(TOKENIZER, documents=2, tokens=5)
    content = json.loads(encode_record(record)) | {"bos_id": 1}
    record_path(tmp_path / "a").write_text(json.dumps(content))

    assert read_record(tmp_path / "a") == record


def changed(**values: Any) -> bytes:
    record = TokenizerRecord(TOKENIZER, documents=2, tokens=5)
    return json.dumps(json.loads(encode_record(record)) | values).encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\x00", b"null", b"[]", b"{}", b"7", b'"text"', b"[" * 10_000, b" " * 20_000),
        *(changed(format=2), changed(format=True), changed(hash=7), changed(name="x" * 201)),
        *(changed(hash=""), changed(documents=-1), changed(tokens=True), changed(eod_id="2")),
        *(changed(vocab_size=1 << 63), changed(tokens=float("inf")), changed(kind=None)),
    ],
)
def test_an_invalid_record_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    record_path(tmp_path / "a").write_bytes(content)

    with pytest.raises(CorruptShardError, match=r"a\.tokenizer\.json: expected the record"):
        read_record(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "missing required field `format`"),
        (b"{", "Input data was truncated"),
        (changed(format=2), "Invalid enum value 2 - at `$.format`"),
        (changed(hash=7), "Expected `str`, got `int` - at `$.hash`"),
    ],
)
def test_the_fault_of_a_record_is_described(tmp_path: Path, content: bytes, reason: str) -> None:
    record_path(tmp_path / "a").write_bytes(content)

    with pytest.raises(CorruptShardError, match=re.escape(reason)):
        read_record(tmp_path / "a")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_only_a_regular_file_is_a_record(tmp_path: Path, kind: str) -> None:
    """A pipe would be waited for, and a device has no end."""
    path = record_path(tmp_path / "a")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    with pytest.raises(CorruptShardError, match="expected a regular file"):
        read_record(tmp_path / "a")


def test_an_unreadable_record_is_an_error_that_says_so(tmp_path: Path) -> None:
    loop = record_path(tmp_path / "a")
    loop.symlink_to(loop)

    with pytest.raises(MissingShardError, match=r"a\.tokenizer\.json: cannot be read \(Too many"):
        read_record(tmp_path / "a")
