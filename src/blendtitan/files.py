"""Reading files: regular ones only, again where a read fails for a moment, many at a time.

A pipe, a socket or a device that has a file's name may never end, or never begin: reading it hangs
or fills the memory. Files of ``/proc`` call themselves regular and empty, and have any content.
Errors of opening are ``OSError``, so callers treat such a file as one that cannot be opened.
"""

import errno
import json
import os
import stat
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from blendtitan.visible import visible_logger

logger = visible_logger(__name__)
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
_ITEMS_PER_RUN = 8
_INT64 = range(-(1 << 63), 1 << 63)

MOST_BYTES = 1 << 32
"""Largest file that is read as a whole, if the caller says nothing else."""


MOST_TOML_BYTES = 1 << 26
"""Largest configuration that is read."""


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | Path) -> tuple[int, int]:
    """The descriptor of a regular file opened for reading, and its size.

    Raises:
        OSError: It cannot be opened, or is something else.
    """
    try:
        # Without O_NONBLOCK, a pipe is opened only when somebody writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_regular("a socket or a device", path) from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _not_regular(_KINDS.get(stat.S_IFMT(found.st_mode), "no file"), path)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd, found.st_size


def open_file(path: str | Path) -> BufferedReader:
    """A regular file, to be read in pieces; errors as ``open_regular``."""
    return open(open_regular(path)[0], "rb")


def read_file(path: str | Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It cannot be read, is no regular file, has more than ``most_bytes`` bytes, or
            holds more or fewer than its size.
    """
    fd, size = open_regular(path)
    with open(fd, "rb") as file:
        if size > most_bytes:
            text = f"found {size:,} bytes, expected at most {most_bytes:,}"
            raise OSError(errno.EFBIG, text, str(path))
        data = file.read(size + 1)
    if data and size == 0:
        raise _not_regular("empty by its size but holds bytes, as files in /proc do", path)
    if len(data) != size:
        found = f"{len(data):,}" if len(data) < size else f"more than {size:,}"
        text = f"found {found} bytes, expected {size:,}, its size; it may be changing"
        raise OSError(errno.EINVAL, text, str(path))
    return data


def read_text(path: str | Path, *, encoding: str = "utf-8", most_bytes: int = MOST_BYTES) -> str:
    """The text of a regular file; all line breaks become newlines. Errors as ``read_file``.

    Raises:
        UnicodeDecodeError: It is not in this encoding.
    """
    text = read_file(path, most_bytes=most_bytes).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_regular(kind: str, path: str | Path) -> OSError:
    number = errno.EISDIR if kind == "a folder" else errno.EINVAL
    return OSError(number, f"it is {kind}, expected a regular file", str(path))


_PASSING_NAMES = (
    # A server that fails over, or a disk that reads a weak sector again. It may stay, too.
    *("EIO", "EREMOTEIO"),
    # NFS: the server knows the file under another handle by now. It is opened again.
    "ESTALE",
    # A mount with a time limit, and what Lustre, Ceph and FUSE answer when a client is thrown
    # out, or a server or the network is down.
    *("ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED"),
    *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    # Nothing is wrong with the file: a signal, or a shortage in the kernel.
    *("EAGAIN", "EINTR", "EBUSY", "ENOMEM", "ENOBUFS"),
)


# All others stay until somebody acts: absent, forbidden, a folder, too many open files.
PASSING = frozenset(getattr(errno, name) for name in _PASSING_NAMES if hasattr(errno, name))
"""Error numbers of reads that are tried again. Not every system has all of them."""


PAUSES = tuple(0.1 * 2**i for i in range(9))
"""Seconds before each new try: 51 in all. The other ranks of a run wait 100 for one that reads
(TorchTitan's ``comm.train_timeout_seconds``), and must hear the error before."""


class Retries:
    """Tries reads again, and counts how often."""

    def __init__(
        self, pauses: tuple[float, ...] = PAUSES, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.pauses = pauses
        self.sleep = sleep
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """How often anything was tried again."""
        with self._lock:
            return self._counts.total()

    def tried(self, attempt: Callable[[], T], *, path: str) -> T:
        """What ``attempt`` returns, now or once the error it meets has passed; as ``again``."""
        try:
            return attempt()
        except OSError as error:
            return self.again(attempt, error, path=path)

    def again(self, attempt: Callable[[], T], error: OSError, *, path: str) -> T:
        """What ``attempt`` returns, once the error of the first one has passed.

        Args:
            attempt: Tried again as long as it fails with errors that may pass.
            error: How the first attempt failed.
            path: The file, for the log.

        Raises:
            OSError: One that does not pass, or the last one after all pauses.
        """
        for pause in self.pauses:
            if error.errno not in PASSING:
                break
            self._note(path, error, pause)
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
        return f"{text}, also after {len(self.pauses)} more tries in {sum(self.pauses):.0f} s"

    def _note(self, path: str, error: OSError, pause: float) -> None:
        with self._lock:
            self._counts[path] += 1
            count, total = self._counts[path], self._counts.total()
        # The 1st, 10th, 100th time: many files may fail for long.
        if str(count).strip("0") == "1":
            logger.warning(
                "%s: a read failed (%s); trying again in %.1f s. This is the %d. time for this "
                "file, the %d. for all. If it goes on, check the disk or network.",
                *(path, error.strerror, pause, count, total),
            )


RETRIES = Retries()
"""Those of all files of this process."""


# Reads wait for the disk, not for Python: more threads than cores.
_MOST_THREADS = 16


# How long the threads work before they are looked at, and may become more.
_LOOK_SECONDS = 0.002


def io_map(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """``[function(item) for item in items]``, for functions that may wait for a file system.

    Where files are cached nothing waits, and threads only take Python's lock from each other: one
    works alone. As long as more than half of the time passes in waiting, they become more.

    Raises:
        Exception: What ``function`` raised, of the first item for which it did.
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
                _drop(runs)

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
            _drop(runs)  # Also after an interrupt, so that the threads end.
    if errors:
        raise errors[min(errors)]
    return [result for start in sorted(results) for result in results[start]]


def _drop(runs: Iterator[int]) -> None:
    """Let nobody take another run."""
    for _ in runs:
        pass


LIMIT_BYTES = 1 << 20
"""Size above which a file is taken for damaged, where the caller names no other."""


class DamagedFileError(ValueError):
    """A file does not hold what this project writes to it."""


def read_json(path: Path, kind: type[T], *, limit_bytes: int = LIMIT_BYTES) -> T:
    """The value of type ``kind`` that a file holds.

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
        kind: A dataclass, or a type made of str, int, float, bool, None, dict, tuple and Literal.

    Raises:
        DamagedFileError: It is no JSON, or stands for a value of another type.
    """
    try:
        value = json.loads(data)
    # A UnicodeDecodeError is a ValueError; arrays in arrays in arrays exhaust the stack.
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise DamagedFileError(f"is not JSON ({reason})") from error
    return checked(kind, value)


def checked(kind: type[T], value: object) -> T:
    """A value from JSON as one of type ``kind``: objects become dataclasses, arrays tuples.

    A field that is missing takes the dataclass's default. A field that the dataclass does not
    have makes the value one of another release, which is an error like any other.

    Raises:
        DamagedFileError: The value is of another type.
    """
    return cast(T, _checked(kind, value))


def _checked(kind: Any, value: object) -> Any:
    arguments: tuple[Any, ...] = get_args(kind)
    origin: Any = get_origin(kind)
    if origin is None:
        return _dataclass(kind, value) if is_dataclass(kind) else _plain(kind, value)
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in arguments):
            raise _wrong(value, "one of " + ", ".join(map(repr, arguments)))
        return value
    if origin in (Union, types.UnionType):
        return _any_of(arguments, value)
    if origin in (dict, Mapping):
        return {
            _checked(arguments[0], name): _checked(arguments[1], held)
            for name, held in _object(value).items()
        }
    return _tuple(arguments, cast(list[Any], _of_type(list, value)))


def _plain(kind: Any, value: object) -> object:
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value) if value in _INT64 else _of_type(float, value)
    # Python's bool is an int, and its int has no end.
    if kind is int and type(value) is int and value not in _INT64:
        raise _wrong(value, "an integer of 64 bits")
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _wrong(value, "text") from error
    return _of_type(kind, value)


def _of_type(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise _wrong(value, _name_of(kind))
    return cast(T, value)


def _object(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], _of_type(dict, value))


def _any_of(kinds: tuple[Any, ...], value: object) -> object:
    for kind in kinds:
        try:
            return _checked(kind, value)
        except DamagedFileError:
            continue
    raise _wrong(value, " or ".join(map(_name_of, kinds)))


def _tuple(kinds: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise _wrong(values, f"{len(kinds)} values")
    return tuple(map(_checked, kinds, values))


def _dataclass(kind: Any, value: object) -> Any:
    given = _object(value)
    hints = _hints(kind)
    unknown = given.keys() - hints
    if unknown:
        raise _wrong(given, f"no {min(unknown)!r:.40}")
    missing = [name for name, has in _defaults(kind).items() if not has and name not in given]
    if missing:
        raise _wrong(given, f"a value for {missing[0]!r}")
    try:
        return kind(**{name: _checked(hints[name], held) for name, held in given.items()})
    except DamagedFileError:
        raise
    except ValueError as error:  # A dataclass may check what it holds.
        raise DamagedFileError(str(error)) from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: hints[name] for name in _defaults(kind)}


@cache
def _defaults(kind: Any) -> dict[str, bool]:
    """Whether each field has a default."""
    return {
        field.name: field.default is not MISSING or field.default_factory is not MISSING
        for field in fields(kind)
        if field.init
    }


_NAMES: dict[Any, str] = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}


def _name_of(kind: Any) -> str:
    """A type in the words of JSON."""
    if is_dataclass(kind):
        return "an object"
    return _NAMES.get(kind) or str(getattr(kind, "__name__", kind))


def _wrong(value: object, expected: str) -> DamagedFileError:
    return DamagedFileError(f"holds {_short(value)}, expected {expected}")


def _short(value: object) -> str:
    if isinstance(value, list | dict):
        size = len(cast(list[Any] | dict[str, Any], value))
        return f"{'an array' if isinstance(value, list) else 'an object'} of {size:,}"
    if isinstance(value, int) and value not in _INT64:
        return "a huge number"
    text = json.dumps(value) if value is None or isinstance(value, bool) else ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
