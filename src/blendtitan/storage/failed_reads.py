"""Failed or short reads of an opened file, and files that cannot be opened."""

import os

from blendtitan.errors import CorruptShardError, MissingShardError
from blendtitan.files import open_regular, path_of, with_retries
from blendtitan.retries import RETRIES
from blendtitan.storage.reader import OpenFile, check_size
from blendtitan.storage.shard_faults import missing_file_advice


def size_of(path: str) -> int:
    """Size of a file in bytes.

    Raises:
        MissingShardError: It is absent, or the size cannot be read.
    """
    try:
        return with_retries(lambda: path_of(path).stat().st_size, path=path)
    except OSError as error:
        raise missing_error(path, "read", error) from error


def complete_read(file: OpenFile, buffer: memoryview, found: int | OSError, *, at: int) -> None:
    """Fill ``buffer`` after a failed or short first read.

    Args:
        file: The file.
        buffer: One byte per item.
        found: Bytes of the first read, or its error.
        at: Byte offset of the buffer in the file.

    Raises:
        CorruptShardError: The file ends before that, or its size has changed.
        MissingShardError: It cannot be read, even after retries.
    """
    try:
        if isinstance(found, OSError):
            raise found
        _read_rest(file, buffer, found, at=at)
    except OSError as error:
        _read_again(file, buffer, error, at=at)


def missing_error(path: str, verb: str, error: OSError) -> MissingShardError:
    """The error for a file of a shard that cannot be opened or read."""
    return MissingShardError(
        f"{path}: cannot be {verb} ({RETRIES.described(error)}). {missing_file_advice(path, error)}"
    )


def _read_rest(file: OpenFile, buffer: memoryview, found: int, *, at: int) -> None:
    # A positioned read may return less than requested, on a network or after a signal.
    is_new = False
    while found < len(buffer):
        more = os.preadv(file.fd, [buffer[found:]], at + found)
        if more == 0 and is_new:
            raise CorruptShardError(
                f"{file.path}: ends at byte {at + found:,}, expected at least "
                f"{at + len(buffer):,}. The file was truncated or replaced: copy it again."
            )
        found += more
        if more == 0:
            # This file was truncated, but a whole file may have replaced it.
            open_again(file)
            is_new, found = True, 0


def _read_again(file: OpenFile, buffer: memoryview, error: OSError, *, at: int) -> None:
    def attempt() -> None:
        open_again(file)
        _read_rest(file, buffer, 0, at=at)

    try:
        RETRIES.again(attempt, error, path=file.path)
    except OSError as last:
        raise MissingShardError(
            f"{file.path}: cannot be read at byte {at:,} ({RETRIES.described(last)}). "
            f"Check the file and the disk or network that it is on."
        ) from last


def open_again(file: OpenFile) -> None:
    """Open the file of this path again, for all threads that read it."""
    fd, num_bytes = open_regular(file.path)
    try:
        check_size(file.path, num_bytes, file.num_bytes)
        # In one step: other threads read through the same descriptor.
        os.dup2(fd, file.fd, inheritable=False)
    finally:
        os.close(fd)
