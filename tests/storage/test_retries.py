"""Reads that fail temporarily are retried, counted and logged. A permanent error is raised."""

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan.errors import CorruptShardError, MissingShardError
from blendtitan.retries import PAUSES, Retries
from blendtitan.storage.failed_reads import open_again
from blendtitan.storage.file_list import read_file_list
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.storage.record_writer import write_folder_catalog
from blendtitan.storage.records import read_folder_catalog
from tests.conftest import WriteShard
from tests.failing_reads import Disk

DIGITS = b"0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "wiki.bin"
    path.write_bytes(DIGITS)
    return path


def read_both_ways(file: OpenFile) -> tuple[bytes, bytes]:
    buffer = np.empty(3, "<u2")
    file.read_into(buffer, at=2)
    return buffer.tobytes(), file.read(6, at=2)


@pytest.mark.parametrize(
    "name", ["EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EHOSTDOWN", "ESHUTDOWN", "ENOMEM"]
)
def test_an_error_that_may_pass_is_tried_again_after_growing_pauses(
    path: Path, disk: Disk, name: str
) -> None:
    file = OpenFile.open(str(path))
    number = getattr(errno, name)
    for way in (0, 1):
        disk.errors = [number] * 4
        disk.pauses.clear()

        assert read_both_ways(file)[way] == b"234567"
        assert disk.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert disk.retries == 8


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "EISDIR", "EBADF", "EINVAL"])
def test_an_error_that_stays_is_not_tried_again(path: Path, disk: Disk, name: str) -> None:
    file = OpenFile.open(str(path))
    disk.errors = [getattr(errno, name)]

    with pytest.raises(MissingShardError, match=r"wiki\.bin: cannot be read at byte 2 "):
        read_both_ways(file)
    assert (disk.reads, disk.retries) == (1, 0)


def test_after_all_retries_the_error_names_file_byte_and_tries(path: Path, disk: Disk) -> None:
    """Within the time that the other ranks of a run wait for this one."""
    file = OpenFile.open(str(path))
    disk.staying = errno.EIO

    with pytest.raises(
        MissingShardError,
        match=r"wiki\.bin: cannot be read at byte 4 \(Input/output error, even after 9 retries "
        r"in 51 s\)",
    ):
        file.read(2, at=4)
    assert disk.pauses == list(PAUSES)


def test_a_permanent_error_after_a_transient_one_ends_the_retries(path: Path, disk: Disk) -> None:
    file = OpenFile.open(str(path))
    disk.errors = [errno.EIO, errno.EACCES]

    with pytest.raises(MissingShardError, match=r"\(Permission denied\)"):
        file.read(2, at=4)
    assert disk.retries == 1


def test_a_file_that_cannot_be_opened_for_a_moment_is_tried_again(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [errno.ESTALE, errno.EIO]
    os_open = os.open

    def failing(*arguments: object, **settings: object) -> int:
        if errors:
            raise OSError(errors.pop(0), "gone for a moment")
        return os_open(*arguments, **settings)  # pyright: ignore

    monkeypatch.setattr(os, "open", failing)

    assert OpenFile.open(str(path)).read(2, at=0) == b"01"
    assert disk.retries == 2


def test_the_file_is_opened_again_before_another_try(path: Path, disk: Disk) -> None:
    """A server that was away does not know the old handle. Shown by a file put in its place."""
    file = OpenFile.open(str(path))
    (path.parent / "new").write_bytes(b"abcdefghij")
    (path.parent / "new").rename(path)
    before = file.read(10, at=0)
    disk.errors = [errno.ESTALE]

    assert before == DIGITS
    assert file.read(10, at=0) == b"abcdefghij"


def test_another_size_is_noticed_when_the_file_is_opened_again(path: Path, disk: Disk) -> None:
    file = OpenFile.open(str(path))
    (path.parent / "new").write_bytes(b"abc")
    (path.parent / "new").rename(path)
    disk.errors = [errno.ESTALE]

    with pytest.raises(CorruptShardError, match="found 3 bytes, expected 10"):
        file.read(2, at=0)


def test_threads_that_share_a_file_are_not_disturbed_when_it_is_opened_again(path: Path) -> None:
    """Nor is any descriptor left open."""
    file = OpenFile.open(str(path))
    wrong: list[bytes] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            data = file.read(10, at=0)
            if data != DIGITS:
                wrong.append(data)

    threads = [threading.Thread(target=read) for _ in range(3)]
    before = open_descriptors(path)
    for thread in threads:
        thread.start()
    for _ in range(2000):
        open_again(file)
    done.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert open_descriptors(path) == before


def open_descriptors(path: Path) -> int:
    """Of this file alone: a collection may close others at any moment."""
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)


def test_parts_are_put_together(path: Path, disk: Disk) -> None:
    """A read may give less than asked for."""
    disk.most_bytes = 4

    assert read_both_ways(OpenFile.open(str(path))) == (b"234567", b"234567")


def test_a_read_that_fails_in_its_middle_is_retried_from_its_start(path: Path, disk: Disk) -> None:
    file = OpenFile.open(str(path))
    disk.most_bytes = 4
    disk.errors = [errno.EIO]

    assert read_both_ways(file) == (b"234567", b"234567")


def test_a_truncated_file_with_a_whole_one_in_its_place_is_read_from_that(path: Path) -> None:
    file = OpenFile.open(str(path))
    os.truncate(path, 4)
    with pytest.raises(CorruptShardError, match="found 4 bytes, expected 10"):
        file.read(6, at=2)
    (path.parent / "new").write_bytes(DIGITS)
    (path.parent / "new").rename(path)

    assert read_both_ways(file) == (b"234567", b"234567")


def test_opening_a_shard_tries_again_too(write_shard: WriteShard, disk: Disk) -> None:
    prefix = write_shard("web", [[5, 2]])
    disk.errors = [errno.EIO, errno.ETIMEDOUT]

    assert ShardIndex.open(prefix).num_tokens == 2
    assert disk.retries == 2


def test_a_list_and_the_catalogs_are_tried_again_too(
    write_shard: WriteShard, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read once, by one rank for all: all would end with it."""
    write_shard("web", [[5, 2]])
    (tmp_path / "list").write_text("1 web")
    write_folder_catalog(tmp_path, {})
    errors = [errno.EIO, errno.ESTALE]
    os_open = os.open

    def failing(*arguments: Any) -> int:
        if errors:
            raise OSError(errors.pop(0), "gone for a moment")
        return os_open(*arguments)

    monkeypatch.setattr(os, "open", failing)

    assert len(read_file_list(tmp_path / "list")) == 1
    errors = [errno.EIO]
    assert read_folder_catalog(tmp_path) == {}
    assert disk.retries == 3


def test_the_1st_10th_and_100th_retry_of_each_file_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Thousands of files may fail for long: the log stays readable."""
    retries = Retries(pauses=(0.0,), sleep=lambda _: None)
    error = OSError(errno.EIO, "Input/output error")
    with caplog.at_level(logging.WARNING):
        for _ in range(150):
            retries.again(lambda: None, error, path="a.bin")
        retries.again(lambda: None, error, path="b.bin")
    told = [(record.args[0], record.args[2]) for record in caplog.records]  # pyright: ignore

    assert told == [("a.bin", 1), ("a.bin", 10), ("a.bin", 100), ("b.bin", 1)]
    assert retries.total == 151
    assert "a.bin: an attempt failed (Input/output error); retry 1 for" in caplog.text
