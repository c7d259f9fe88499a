"""Input files, on this machine or behind a URL: their identity, and how to open them."""

import os
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from blendtitan.errors import BlendTitanError, InputError
from blendtitan.prepare.file_formats import Format, expected_names, format_of

WORK_FOLDER = ".blendtitan"
"""Below the output: the plan, the parts of unfinished shards, the records of finished ones."""

REJECTS_SUFFIX = ".rejects.jsonl"

_WEB = ("http", "https")

_KERNEL_FOLDERS = ("/proc/", "/sys/")

_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)

# What stores tell of a file that differs when its content does, from the surest on.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "crc32c", "generation")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file as it was found: another size or version is another input."""

    location: str
    """Absolute path, or URL."""

    num_bytes: int

    version: int | str
    """Time of change in nanoseconds; of a URL, what its store tells versions apart by."""

    @classmethod
    def of(cls, location: str | Path) -> "InputFile":
        """The file at a path or URL, as it is now.

        Raises:
            InputError: It cannot be read.
        """
        if is_url(location):
            return _remote_file(str(location))
        with readable(location):
            status = os.stat(location)
        if (kind := file_kind(location, status)) != "regular file":
            raise InputError(f"{location}: is a {kind}, expected a regular file")
        return cls(os.path.abspath(location), status.st_size, status.st_mtime_ns)

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells this input from others and from what it was before."""
        return {"input": self.location, "num_bytes": self.num_bytes, "version": self.version}

    def check_unchanged(self) -> None:
        """Check that the file is what it was.

        Raises:
            InputError: It changed, or is gone.
        """
        if is_url(self.location):
            # Stores remember what they once told.
            with readable(self.location):
                file_system(self.location)[0].invalidate_cache()
        found = InputFile.of(self.location)
        if found != self:
            raise InputError(
                f"{self.location}: changed while it was read (found {found.num_bytes:,} bytes, "
                f"expected {self.num_bytes:,} and the same version). Run again when it is complete."
            )

    @property
    def format(self) -> Format:
        """How it is read, as its name says.

        Raises:
            InputError: The name says nothing of the kind.
        """
        found = format_of(PurePosixPath(path_of(self.location)).name)
        if found is None:
            raise InputError(f"{self.location}: expected a file named {expected_names()}")
        return found

    def open(self) -> BinaryIO:
        """The file, to be read from any place; ``readable`` knows the errors."""
        if not is_url(self.location):
            return open(self.location, "rb")
        files, path = file_system(self.location)
        return cast(BinaryIO, files.open(path, "rb"))


def is_url(location: str | Path) -> bool:
    """Whether a location is a URL, which fsspec reads."""
    return "://" in str(location)


@contextmanager
def readable(location: str | Path) -> Generator[None]:
    """Make an error of reading inside the block one of ours that names the file.

    Raises:
        InputError: Reading failed.
    """
    try:
        yield
    except BlendTitanError:
        raise
    except OSError as error:
        raise InputError(f"{location}: cannot be read ({error.strerror or error})") from error
    except Exception as error:
        # Every store's library has errors of its own. A local file has none but those above.
        if not is_url(location):
            raise
        raise InputError(f"{location}: cannot be read ({type(error).__name__}: {error})") from error


def file_kind(path: str | Path, status: os.stat_result) -> str:
    """What a path leads to, for people. Only a ``regular file`` is safe to read to its end."""
    if stat.S_ISREG(status.st_mode):
        # Files of the kernel have no size, and some of them never end.
        is_kernels = status.st_size == 0 and os.path.realpath(path).startswith(_KERNEL_FOLDERS)
        return "file of the kernel" if is_kernels else "regular file"
    return next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "special file")


def path_of(location: str) -> str:
    """The path of a location: of a web address, without server, query and fragment."""
    parts = urlsplit(location) if is_url(location) else None
    return parts.path if parts and parts.scheme in _WEB else location


def file_system(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path in it.

    Raises:
        InputError: There is none, or its library is not installed.
    """
    # Imported where it is needed: it takes as long as all else together.
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: cannot be read: {error}") from error


def _remote_file(url: str) -> InputFile:
    with readable(url):
        files, path = file_system(url)
        info: Mapping[str, Any] = files.info(path)
    if info.get("type", "file") != "file":
        raise InputError(f"{url}: is of type {info['type']!r}, expected a regular file")
    if info.get("size") is None:
        raise InputError(
            f"{url}: its size is not told, expected a store that tells it and sends parts of "
            f"files. Copy the file to this machine first."
        )
    told = [name for name in (*_VERSIONS, *_TIMES) if info.get(name)]
    return InputFile(url, int(info["size"]), f"{told[0]} {info[told[0]]}" if told else "")
