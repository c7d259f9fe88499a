import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from blendtitan.errors import ConfigError, CorruptShardError
from blendtitan.storage.atomic_files import partial_path, replaced_file, write_atomically
from blendtitan.storage.writer import ShardWriter, append_file, remove_partials, write_shard


@pytest.mark.parametrize("answer", [None, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_files_are_appended_whole_whatever_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(answer, "")

    if answer is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    (tmp_path / "a").write_bytes(b"and the rest")
    with (tmp_path / "b").open("wb") as target:
        target.write(b"the beginning ")
        found = append_file(tmp_path / "a", target)
        target.write(b" and more")

    assert found == 12
    assert (tmp_path / "b").read_bytes() == b"the beginning and the rest and more"


def test_a_disk_that_is_full_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    (tmp_path / "a").write_bytes(b"content")

    with (tmp_path / "b").open("wb") as target, pytest.raises(OSError, match="no space left"):
        append_file(tmp_path / "a", target)


def test_documents_added_from_a_file_equal_those_added_one_by_one(tmp_path: Path) -> None:
    """So the parts of a shard give the bytes that one writer would have given."""
    tokens, lens = np.arange(10, dtype="<u2"), np.array([3, 1, 6], np.int32)
    tokens.tofile(tmp_path / "part")
    with ShardWriter.create(tmp_path / "one", dtype=tokens.dtype) as writer:
        for document in np.split(tokens, [3, 4]):
            writer.add_document(document)
    with ShardWriter.create(tmp_path / "file", dtype=tokens.dtype) as writer:
        writer.add_file(tmp_path / "part", lens)

        assert (writer.num_documents, writer.num_tokens) == (3, 10)

    for suffix in ("bin", "idx"):
        one, file = (tmp_path / f"{name}.{suffix}" for name in ("one", "file"))
        assert one.read_bytes() == file.read_bytes()


def test_a_file_that_is_not_as_long_as_its_documents_is_an_error(tmp_path: Path) -> None:
    np.arange(10, dtype="<u2").tofile(tmp_path / "part")

    with (
        pytest.raises(CorruptShardError, match="part: found 20 bytes, expected 22"),
        ShardWriter.create(tmp_path / "a", dtype=np.dtype("<u2")) as writer,
    ):
        writer.add_file(tmp_path / "part", np.array([11], np.int32))
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("durable", [True, False])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, durable: bool) -> None:
    def write_and_fail() -> None:
        with replaced_file(tmp_path / "a", durable=durable) as file:
            file.write(b"new")
            raise InterruptedError

    write_atomically(tmp_path / "a", b"old")

    with pytest.raises(InterruptedError):
        write_and_fail()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_partial_files_of_killed_writers_are_removed_with_their_shard_only(tmp_path: Path) -> None:
    stay = ["a", "a.bin", "a.b.bin.partial-1-2", "ab.bin.partial-1-2", "[a].idx.partial-1-2"]
    for name in [*stay, "a.bin.partial-1-2", "a.idx.partial-3-4"]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))

    remove_partials(tmp_path / "a")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stay)


def test_files_of_a_living_process_stay(tmp_path: Path) -> None:
    """Another command would end in `No such file`, after the work was done."""
    written, of_another_machine = partial_path(tmp_path / "a.bin"), "a.bin.partial-0000aaaa-1-2"
    for path in (written, tmp_path / of_another_machine):
        path.touch()

    remove_partials(tmp_path / "a")

    assert sorted(tmp_path.iterdir()) == sorted([written, tmp_path / of_another_machine])


def test_the_index_is_made_before_any_token_is_copied(tmp_path: Path) -> None:
    """Making it checks the inputs of a merge, which may have gigabytes of tokens."""

    def index() -> Iterator[bytes]:
        yield b"MMIDIDX"
        raise CorruptShardError("a source is corrupt")

    def write_tokens(file: BinaryIO) -> None:
        raise AssertionError("tokens were copied")

    with pytest.raises(CorruptShardError, match="a source is corrupt"):
        write_shard(tmp_path / "web", index(), write_tokens)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_written_to_a_local_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL would become a folder named ``s3:``."""
    monkeypatch.chdir(tmp_path)
    url = Path("s3://bucket/web")
    with pytest.raises(ConfigError, match="which is a URL, expected a local path"):
        ShardWriter.create(url, dtype=np.dtype("<u2"))
    with pytest.raises(ConfigError, match="which is a URL, expected a local path"):
        write_shard(url, [b""], lambda file: None)

    assert not [*tmp_path.iterdir()]
