"""Files opened for reading, if they are regular ones.

A pipe, a socket or a device that has a file's name may never end, or never begin: reading it hangs
or fills the memory. Files of ``/proc`` call themselves regular and empty, and have any content.

The errors are ``OSError``, so whoever opens a file treats them as one that cannot be opened.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

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
