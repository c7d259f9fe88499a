"""Files read at given positions: no memory maps, a bounded number of them open."""

import errno
import os
import threading
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MissingShardError
from blendtitan.regular_files import open_regular
from blendtitan.storage.retries import RETRIES


class OpenFile:
    """A file opened for reading. It is closed when the last reference to it goes.

    Reads that fail with an error that may pass are tried again, on the file opened anew: a file
    server that was away does not know what was open before.
    """

    __slots__ = ("fd", "num_bytes", "path")

    def __init__(self, path: str, fd: int, num_bytes: int) -> None:
        self.path = path
        self.fd = fd
        self.num_bytes = num_bytes
        """Size of the file when it was opened."""

    @classmethod
    def open(cls, path: str) -> Self:
        """Open ``path``.

        Raises:
            MissingShardError: It cannot be opened.
        """
        try:
            return cls(path, *RETRIES.tried(lambda: open_regular(path), path=path))
        except OSError as error:
            raise MissingShardError(
                f"{path}: cannot be opened ({RETRIES.described(error)}). {_advice(path, error)}"
            ) from error

    def __del__(self) -> None:
        os.close(self.fd)

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """Fill ``buffer``, which is contiguous, with the bytes from byte offset ``at`` on.

        Raises:
            CorruptShardError: The file ends before that, or has another size by now.
            MissingShardError: It cannot be read.
        """
        try:
            found = os.preadv(self.fd, [buffer.data], at)
            if found < buffer.nbytes:
                self._read_rest(buffer.data.cast("B"), found, at=at)
        except OSError as error:
            self._read_again(buffer.data.cast("B"), error, at=at)

    def read(self, num_bytes: int, *, at: int) -> bytes:
        """Exactly ``num_bytes`` bytes from byte offset ``at`` on; errors as ``read_into``."""
        try:
            data = os.pread(self.fd, num_bytes, at)
            if len(data) == num_bytes:
                return data
            buffer = bytearray(num_bytes)
            self._read_rest(memoryview(buffer), 0, at=at)
        except OSError as error:
            buffer = bytearray(num_bytes)
            self._read_again(memoryview(buffer), error, at=at)
        return bytes(buffer)

    def _read_rest(self, buffer: memoryview, found: int, *, at: int) -> None:
        # A positioned read may return less than asked for, on a network or after a signal.
        is_new = False
        while found < len(buffer):
            more = os.preadv(self.fd, [buffer[found:]], at + found)
            if more == 0 and is_new:
                raise CorruptShardError(
                    f"{self.path}: ends at byte {at + found:,}, expected at least "
                    f"{at + len(buffer):,}. The file was truncated or replaced: copy it again."
                )
            found += more
            if more == 0:
                # This file was truncated. A whole one may have its name by now.
                self._open_again()
                is_new, found = True, 0

    def _read_again(self, buffer: memoryview, error: OSError, *, at: int) -> None:
        def attempt() -> None:
            self._open_again()
            self._read_rest(buffer, 0, at=at)

        try:
            RETRIES.again(attempt, error, path=self.path)
        except OSError as last:
            raise MissingShardError(
                f"{self.path}: cannot be read at byte {at:,} ({RETRIES.described(last)}). "
                f"Check the file and the disk or network that it is on."
            ) from last

    def _open_again(self) -> None:
        fd, num_bytes = open_regular(self.path)
        try:
            if num_bytes != self.num_bytes:
                raise _another_size(self.path, num_bytes, self.num_bytes)
            # In one step: other threads read through the same descriptor.
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)


class OpenFiles:
    """The most recently used files, at most ``max_open`` of them. Safe to share by threads.

    A file that is pushed out while a thread still reads it stays open until that read ends.
    """

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._files: dict[str, OpenFile] = {}
        self._lock = threading.Lock()

    def open(self, path: str, expected_bytes: Callable[[], int]) -> OpenFile:
        """The open file of ``path``, opened now if need be.

        Raises:
            MissingShardError: It cannot be opened.
            CorruptShardError: Opened now, its size is not ``expected_bytes()``.
        """
        file = self._files.get(path)
        if file is not None and len(self._files) < self._max_open:
            return file  # While there is room, nobody needs to know which was used last.
        with self._lock:
            file = self._files.pop(path, None)
            if file is not None:
                self._files[path] = file
                return file
        # Without the lock: on a network this takes long, and other threads have work to do.
        file = OpenFile.open(path)
        expected = expected_bytes()
        if file.num_bytes != expected:
            raise _another_size(path, file.num_bytes, expected)
        with self._lock:
            self._files.pop(path, None)
            if len(self._files) >= self._max_open:
                self._files.pop(next(iter(self._files)))
            self._files[path] = file
        return file


def size_of(path: str) -> int:
    """Size of a file in bytes.

    Raises:
        MissingShardError: It is absent, or the size cannot be read.
    """
    try:
        return RETRIES.tried(lambda: os.stat(path).st_size, path=path)
    except OSError as error:
        raise MissingShardError(
            f"{path}: cannot be read ({RETRIES.described(error)}). {_advice(path, error)}"
        ) from error


def _another_size(path: str, found: int, expected: int) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: found {found:,} bytes, expected {expected:,}. The file was truncated or "
        f"replaced: copy both files again, or tokenise the shard again."
    )


def _advice(path: str, error: OSError) -> str:
    """What to do about a file that cannot be opened."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Lower max_open_shards, or raise the limit of open files (ulimit -n)."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Check the permissions of the file and of its folders."
    stem, suffix = path[:-4], path[-4:]
    if stem.endswith((".bin", ".idx")):
        return f"Name the shard without {stem[-4:]}."
    other = f"{stem}{'.bin' if suffix == '.idx' else '.idx'}"
    if os.path.exists(other):
        name = os.path.basename(other)
        return f"{name} is there, so the copy is incomplete: copy both files again."
    return "Check the path in the file list; relative paths start at the list's folder."
