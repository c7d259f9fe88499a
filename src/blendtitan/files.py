"""Read regular files only, repeat reads after transient errors, and read many files at a time.

Reading a pipe, socket or device that has a file's name may hang or fill the memory. Files in
``/proc`` claim to be regular and empty, and have any content. All of them raise ``OSError`` here,
like a file that cannot be opened.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

MOST_TOML_BYTES = 1 << 26
"""Size limit of configuration files."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_MOST_THREADS = 64
_LOOK_SECONDS = 0.002
_ITEMS_PER_RUN = 8


# Path("s3://bucket") is s3:/bucket.
_URL = re.compile(r"(s3a?|gs|az|abfss?|https?):/+(?=[^/])")


def url_of(path: str | Path) -> str | None:
    """The URL of a file in object storage or on a web server. None: the path is local."""
    found = _URL.match(str(path))
    return found and f"{found[1]}://{os.path.normpath(str(path)[found.end() :])}"


def path_of(text: str | Path) -> Path:
    """A path; that of a URL answers for its store, see ``remote.py``."""
    if not url_of(text):
        return Path(text)
    from blendtitan.remote import RemotePath

    return RemotePath(text)


def open_regular(path: str | Path) -> tuple[int, int]:
    """The descriptor of a regular file opened for reading, and its size in bytes.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer. Regular files ignore it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_regular("a socket or a device", path) from None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise _not_regular(_KINDS.get(stat.S_IFMT(found.st_mode), "no file"), path)
    return fd, found.st_size


def open_file(path: str | Path) -> BufferedReader:
    """A regular file, to be read in pieces; errors as ``open_regular``."""
    return open(open_regular(path)[0], "rb")


def read_file(path: str | Path, *, most_bytes: int = 1 << 32) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It cannot be read, is not a regular file, has more than ``most_bytes`` bytes, or
            holds more or fewer bytes than its size.
    """
    if url_of(path):
        remote = path_of(path)
        _check_size(remote.stat().st_size, most_bytes, path)
        return remote.read_bytes()
    fd, size = open_regular(path)
    try:
        _check_size(size, most_bytes, path)
        data = os.read(fd, size + 1)
        while len(data) < size and (more := os.read(fd, size - len(data))):
            data += more
    finally:
        os.close(fd)
    if data and size == 0:
        raise _not_regular("a file of size 0 with content, as in /proc", path)
    if len(data) != size:
        found = f"{len(data):,}" if len(data) < size else f"more than {size:,}"
        text = f"found {found} bytes, expected {size:,}, its size; it may be changing"
        raise OSError(errno.EINVAL, text, str(path))
    return data


def _check_size(size: int, most_bytes: int, path: str | Path) -> None:
    if size > most_bytes:
        text = f"found {size:,} bytes, expected at most {most_bytes:,}"
        raise OSError(errno.EFBIG, text, str(path))


def read_text(path: str | Path, *, encoding: str = "utf-8", most_bytes: int = 1 << 32) -> str:
    """The text of a regular file; all line breaks become newlines. Errors as ``read_file``.

    Raises:
        UnicodeDecodeError: It is not in this encoding.
    """
    text = read_file(path, most_bytes=most_bytes).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_regular(kind: str, path: str | Path) -> OSError:
    number = errno.EISDIR if kind == "a folder" else errno.EINVAL
    return OSError(number, f"it is {kind}, expected a regular file", str(path))


def with_retries(attempt: Callable[[], T], *, path: str) -> T:
    """Return the result of ``attempt``, with retries; see ``Retries.again``."""
    try:
        return attempt()
    except FileNotFoundError:
        raise
    except OSError as error:
        from blendtitan.retries import RETRIES

        return RETRIES.again(attempt, error, path=path)


def io_map(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """``[function(item) for item in items]``, for functions that may wait for a file system.

    One thread suffices for cached files, because more would only compete for Python's lock. The
    number of threads doubles while more than half of the time is spent waiting.

    Raises:
        Exception: The error of ``function`` for the first item that failed.
    """
    results: dict[int, list[B]] = {}
    errors: dict[int, Exception] = {}
    size = max(1, min(_ITEMS_PER_RUN, len(items) // _MOST_THREADS))
    runs = iter(range(0, len(items), size))  # shared: each run is taken once, in order

    def work() -> None:
        for start in runs:
            try:
                results[start] = [function(item) for item in items[start : start + size]]
            except Exception as error:
                errors[start] = error
                _exhaust(runs)

    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        try:
            working = {pool.submit(work)}
            while working:
                began, busy_before = time.perf_counter(), time.process_time()
                working = wait(working, _LOOK_SECONDS).not_done
                busy = time.process_time() - busy_before
                if 2 * busy < time.perf_counter() - began:
                    more = min(len(working), _MOST_THREADS - len(working))
                    working |= {pool.submit(work) for _ in range(more)}
        finally:
            _exhaust(runs)  # Also after an interrupt, so that the threads end.
    if errors:
        raise errors[min(errors)]
    return [result for start in sorted(results) for result in results[start]]


def _exhaust(runs: Iterator[int]) -> None:
    for _ in runs:
        pass


class DamagedFileError(ValueError):
    """A file is damaged, or was not written by this project."""


def decode_json(data: bytes, kind: type[T]) -> T:
    """Parse a value of type ``kind``, such as a ``msgspec.Struct``, from JSON text.

    Raises:
        DamagedFileError: The text is not JSON, or holds a value of another type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFileError(f"has unexpected content ({error})") from error
