"""Input files, on this machine or behind a URL: which there are, what tells them apart, opening."""

import glob
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from blendtitan.errors import BlendTitanError, InputError
from blendtitan.storage.tokenizer_records import RECORD_SUFFIX

COMPRESSED = (".gz", ".zst")
"""What the names of compressed files end in. They are read as one stream."""

PARQUET = ".parquet"

SUFFIXES = (".jsonl", ".json", *COMPRESSED, PARQUET)
"""What the names of input files end in. ``.json`` files are read as JSON lines too."""

WORK_FOLDER = ".blendtitan"
"""Below the output: the plan, the parts of unfinished shards, the records of finished ones."""

REJECTS_SUFFIX = ".rejects.jsonl"

_WILDCARDS = frozenset("*?[")

_WEB = ("http", "https")

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
                _file_system(self.location)[0].invalidate_cache()
        found = InputFile.of(self.location)
        if found != self:
            raise InputError(
                f"{self.location}: changed while it was read (found {found.num_bytes:,} bytes, "
                f"expected {self.num_bytes:,} and the same version). Run again when it is complete."
            )

    @property
    def suffix(self) -> str:
        """What its name ends in, as ``SUFFIXES`` has it."""
        return PurePosixPath(_name(self.location)).suffix

    def open(self) -> BinaryIO:
        """The file, to be read from any place; ``readable`` knows the errors."""
        if not is_url(self.location):
            return open(self.location, "rb")
        files, path = _file_system(self.location)
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


def find_inputs(location: str | Path) -> Iterator[tuple[InputFile, PurePosixPath]]:
    """Each input file at a file, folder or pattern, sorted, and its path below what was named.

    Raises:
        InputError: There is none, or it is of another kind, or cannot be read.
    """
    text = str(location)
    found = _find_remote(text) if is_url(text) else _find_local(text)
    if not found:
        kind = "holds" if _WILDCARDS.isdisjoint(text) else "matches"
        raise InputError(f"{text}: {kind} no file named {_expected_names()}")
    for file, relative in sorted(found.items(), key=lambda entry: entry[1].parts):
        yield InputFile.of(file), relative


def without_suffixes(name: str) -> str:
    """The name of an input file less what says how it is read."""
    for suffix in (*COMPRESSED, ".jsonl", ".json", PARQUET):
        name = name.removesuffix(suffix)
    return name


def _find_local(text: str) -> dict[str, PurePosixPath]:
    """Input files by location, with their paths below what was named."""
    path = Path(text)
    if path.is_dir():
        return _below(text, (str(file) for file in path.rglob("*") if file.is_file()))
    if path.exists():
        _check_kind(text)
        return {text: PurePosixPath(path.name)}
    if _WILDCARDS.isdisjoint(text):
        raise InputError(f"{text}: there is no such file or folder")
    matches = glob.glob(text, recursive=True)
    return _below(_fixed_part(text), (match for match in matches if os.path.isfile(match)))


def _find_remote(url: str) -> dict[str, PurePosixPath]:
    with readable(url):
        files, root = _file_system(url)
        if not _WILDCARDS.isdisjoint(_name(url)):
            names = files.glob(root)
            fixed = _fixed_part(root)
        # A web server is not asked whether a file is a folder: it would send all of the file.
        elif _is_input(url) or not files.isdir(root):
            _check_kind(url)
            return {url: PurePosixPath(PurePosixPath(_name(url)).name)}
        else:
            names = files.find(root)
            fixed = root
        return {
            files.unstrip_protocol(name): relative
            for name, relative in _below(fixed, names).items()
        }


def _below(folder: str, names: Iterable[str]) -> dict[str, PurePosixPath]:
    """The input files among some files, with their paths relative to a folder above them."""
    return {name: _relative(_name(name), _name(folder)) for name in names if _is_input(name)}


def _relative(path: str, folder: str) -> PurePosixPath:
    root = "/" if path.startswith("/") else "."
    return PurePosixPath(os.path.relpath(path, folder or root))


def _is_input(location: str) -> bool:
    # The output may lie in a folder of inputs.
    path = PurePosixPath(_name(location))
    suffixes = (REJECTS_SUFFIX, RECORD_SUFFIX)
    is_output = WORK_FOLDER in path.parts or path.name.endswith(suffixes)
    return path.suffix in SUFFIXES and not is_output


def _check_kind(location: str) -> None:
    if not _is_input(location):
        raise InputError(f"{location}: expected a folder, or a file named {_expected_names()}")


def _expected_names() -> str:
    return " or ".join(f"*{suffix}" for suffix in SUFFIXES)


def _name(location: str) -> str:
    """The path of a location: of a web address, without server, query and fragment."""
    parts = urlsplit(location) if is_url(location) else None
    return parts.path if parts and parts.scheme in _WEB else location


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first wildcard."""
    before = pattern[: min(pattern.find(mark) for mark in _WILDCARDS if mark in pattern)]
    return before.rpartition("/")[0] or ("/" if before.startswith("/") else "")


def _file_system(url: str) -> tuple[Any, str]:
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
        files, path = _file_system(url)
        info: Mapping[str, Any] = files.info(path)
    if info.get("size") is None:
        raise InputError(
            f"{url}: its size is not told, expected a store that tells it and sends parts of "
            f"files. Copy the file to this machine first."
        )
    told = [name for name in (*_VERSIONS, *_TIMES) if info.get(name)]
    return InputFile(url, int(info["size"]), f"{told[0]} {info[told[0]]}" if told else "")
