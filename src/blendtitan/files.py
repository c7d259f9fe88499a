"""Reading files: regular ones only, again after passing errors, many at a time, as checked JSON.

Reading a pipe, socket or device that has a file's name may hang or fill the memory. Files in
``/proc`` claim to be regular and empty, and have any content. All of them raise ``OSError`` here,
like a file that cannot be opened.
"""

import errno
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

MOST_TOML_BYTES = 1 << 26
"""Size limit of configuration files."""

LIMIT_BYTES = 1 << 20
"""Size limit of JSON files, unless the caller names another."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# A server that fails over, or a disk that reads a weak sector again: EIO, EREMOTEIO.
# NFS knows the file under another handle by now: ESTALE.
# Mounts with a time limit; Lustre, Ceph and FUSE when a client is thrown out or a server is down:
# ETIMEDOUT to ENETRESET. A signal or a shortage in the kernel: the rest.
_PASSING_NAMES = (
    "EIO EREMOTEIO ESTALE ETIMEDOUT ENOTCONN ESHUTDOWN ECONNRESET ECONNREFUSED ECONNABORTED "
    "EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET EAGAIN EINTR EBUSY ENOMEM ENOBUFS"
)
PASSING = frozenset(getattr(errno, n) for n in _PASSING_NAMES.split() if hasattr(errno, n))
"""Errors that may pass within seconds, so that the read is repeated."""

PAUSES = tuple(0.1 * 2**i for i in range(9))
"""Seconds before each retry, 51 in all. The other ranks of a run wait 100 for one that reads
(TorchTitan's ``comm.train_timeout_seconds``), and must hear of the error before that."""

_MOST_THREADS = 16
_LOOK_SECONDS = 0.002
_ITEMS_PER_RUN = 8

_INT64 = range(-(1 << 63), 1 << 63)


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
    fd, size = open_regular(path)
    try:
        if size > most_bytes:
            text = f"found {size:,} bytes, expected at most {most_bytes:,}"
            raise OSError(errno.EFBIG, text, str(path))
        data = os.read(fd, size + 1)
        while len(data) < size and (more := os.read(fd, size - len(data))):
            data += more
    finally:
        os.close(fd)
    if data and size == 0:
        raise _not_regular("empty by its size but holds bytes, as files in /proc do", path)
    if len(data) != size:
        found = f"{len(data):,}" if len(data) < size else f"more than {size:,}"
        text = f"found {found} bytes, expected {size:,}, its size; it may be changing"
        raise OSError(errno.EINVAL, text, str(path))
    return data


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


class Retries:
    """Repeats reads that fail for a moment, and counts the retries.

    A server that fails over answers again some seconds later, and a run on thousands of nodes must
    not end because of it.
    """

    def __init__(
        self, pauses: tuple[float, ...] = PAUSES, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.pauses = pauses
        self.sleep = sleep
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Retries so far, of all files."""
        with self._lock:
            return self._counts.total()

    def tried(self, attempt: Callable[[], T], *, path: str) -> T:
        """What ``attempt`` returns, at once or after retries; as ``again``."""
        try:
            return attempt()
        except OSError as error:
            return self.again(attempt, error, path=path)

    def again(self, attempt: Callable[[], T], error: OSError, *, path: str) -> T:
        """What ``attempt`` returns once the error of the first attempt has passed.

        Args:
            attempt: Repeated after growing pauses, as long as it fails with passing errors.
            error: How the first attempt failed.
            path: The file, for the log.

        Raises:
            OSError: An error that does not pass, or the last one after all pauses.
        """
        for pause in self.pauses:
            if error.errno not in PASSING:
                break
            self._log(path, error, pause)
            self.sleep(pause)
            try:
                return attempt()
            except OSError as next_error:
                error = next_error
        raise error

    def described(self, error: OSError) -> str:
        """An error of ``again`` in words."""
        text = error.strerror or str(error)
        if error.errno not in PASSING or not self.pauses:
            return text
        return f"{text}, also after {len(self.pauses)} retries in {sum(self.pauses):.0f} s"

    def _log(self, path: str, error: OSError, pause: float) -> None:
        with self._lock:
            self._counts[path] += 1
            count, total = self._counts[path], self._counts.total()
        # The 1st, 10th, 100th retry: many files may fail for long.
        if str(count).strip("0") == "1":
            logger.warning(
                "%s: a read failed (%s); retry %d for this file, %d in total, in %.1f s. If this "
                "continues, check the disk or network.",
                *(path, error.strerror, count, total, pause),
            )


RETRIES = Retries()
"""The retries of this process."""


def io_map(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """``[function(item) for item in items]``, for functions that may wait for a file system.

    One thread works alone where files are cached, because threads would only take Python's lock
    from each other. While more than half of the time passes in waiting, their number doubles.

    Raises:
        Exception: What ``function`` raised for the first item that failed.
    """
    results: dict[int, list[B]] = {}
    errors: dict[int, Exception] = {}
    runs = iter(range(0, len(items), _ITEMS_PER_RUN))  # shared: each run is taken once, in order

    def work() -> None:
        for start in runs:
            try:
                results[start] = [function(item) for item in items[start : start + _ITEMS_PER_RUN]]
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
    """A file does not hold what this project writes to it."""


def read_json(path: Path, kind: type[T], *, limit_bytes: int = LIMIT_BYTES) -> T:
    """The value of type ``kind`` that a JSON file holds; see ``parse_json``.

    Raises:
        DamagedFileError: It holds something else, is larger than the limit, or is a folder.
        OSError: It cannot be read, or is not there.
    """
    try:
        with open_file(path) as file:
            data = file.read(limit_bytes + 1)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DamagedFileError(f"{path}: {error.strerror}, expected a file") from error
    if len(data) > limit_bytes:
        raise DamagedFileError(f"{path}: is larger than {limit_bytes:,} bytes")
    try:
        return parse_json(data, kind)
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def parse_json(data: bytes, kind: type[T]) -> T:
    """The value of type ``kind`` that JSON text stands for.

    Args:
        data: The text, in UTF-8.
        kind: A ``msgspec.Struct``, a dataclass, or a type made of str, int, float, bool, None,
            dict, tuple and Literal. In all but a ``Struct``, integers have 64 bits, and an unknown
            field is an error: the value is one of another release.

    Raises:
        DamagedFileError: The text is not JSON, or stands for a value of another type.
    """
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _converted(lambda: msgspec.json.decode(data, type=kind))
    return checked(kind, _converted(lambda: msgspec.json.decode(data)))


def checked(kind: type[T], value: object) -> T:
    """A value from JSON as one of type ``kind``; as ``parse_json``."""
    made = _converted(lambda: msgspec.convert(value, kind))
    _check_known(value, msgspec.to_builtins(made))
    return made


def _converted(convert: Callable[[], T]) -> T:
    try:
        return convert()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFileError(f"is not what it should be ({error})") from error


def _check_known(value: object, known: object) -> None:
    """Check that ``known`` has all keys of ``value``, and that no integer is too large."""
    if isinstance(value, int) and value not in _INT64:
        raise DamagedFileError("holds an integer of more than 64 bits")
    if isinstance(value, list):
        for one, other in zip(cast("list[Any]", value), cast("list[Any]", known), strict=True):
            _check_known(one, other)
    if isinstance(value, dict):
        for name, one in cast("dict[str, Any]", value).items():
            if name not in cast("dict[str, Any]", known):
                raise DamagedFileError(f"holds {name!r:.40}, which this release does not know")
            _check_known(one, cast("dict[str, Any]", known)[name])
