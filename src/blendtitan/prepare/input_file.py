"""Input files: the format that a name implies, and opening a local file or a URL."""

import hashlib
import os
import re
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http.client import responses
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import urlsplit

from blendtitan.errors import BlendTitanError, ConfigError, InputError
from blendtitan.files import url_of
from blendtitan.storage.writer import SOURCE_COLUMNS

Kind = Literal["lines", "json", "text", "csv", "tsv", "parquet", "arrow"]
Compression = Literal["", "gz", "zst", "xz", "bz2"]
TxtMode = Literal["file", "line"]

WORK_FOLDER = ".blendtitan"
"""Below the output: parts of unfinished shards, and records of finished ones.

Of an output in object storage, it has the records; ``work_folder`` has the rest."""

REJECTS_SUFFIX = ".rejects.jsonl"

MAX_DOCUMENT_BYTES = 16 << 20
"""Default limit for one document, as stored: 16 MiB. Longer documents are rejected.

SentencePiece needs about 45 times as much memory to encode a document."""

_KINDS: dict[str, Kind] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "json",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_COMPRESSIONS: dict[str, Compression] = {
    ".gz": "gz",
    ".zst": "zst",
    ".zstd": "zst",
    ".xz": "xz",
    ".bz2": "bz2",
}
EXPECTED_NAMES = " or ".join((", ".join(f"*{kind}" for kind in _KINDS), "*.gz, *.zst, *.xz, *.bz2"))
"""The names of input files, for error messages. Upper and lower case are equal."""

# Containers of several columns or files. They are never compressed as a whole.
_CONTAINERS = (".parquet", ".arrow", ".feather", ".tar", ".zip", ".7z", ".rar")

# Documentation, checksums and bookkeeping files that usually accompany text.
_COMPANIONS = re.compile(
    r"(readme|licen[sc]e|copying|notice|changelog|changes|citation|authors|contributing)"
    r"([._-][\w.-]*)?"
    r"|dataset_infos?\.json|dataset_dict\.json|state\.json|_success|_(common_)?metadata"
    r"|(checksums|md5sums|sha1sums|sha256sums|sha512sums)(\.txt)?"
    r"|.*\.(md|rst|md5|sha1|sha256|sha512|sfv|crc)",
    re.DOTALL,
)

_TEXT_PER_COMPRESSED_BYTE = 3
_TEXT_PER_PARQUET_BYTE = 2

_DIGEST_CHARS = 16
_WEB = ("http", "https")
_OBSTORE = ("s3", "gs")
"""Schemes that obstore reads if fsspec's own package for them is not installed."""

_CLIENT: Any = {"connect_timeout": "10s", "timeout": "120s", "allow_http": True}
_RETRIES: Any = {"max_retries": 8, "retry_timeout": timedelta(minutes=1)}

_KERNEL_FOLDERS = ("/proc/", "/sys/")
_FILE_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}

# Attributes that change with the content of a remote file, the most reliable first.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "crc32c", "generation")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class Format:
    """The format of a file, according to its name."""

    kind: Kind
    compression: Compression = ""

    @property
    def unit(self) -> Literal["row", "byte"]:
        """The unit of a text's place in the file."""
        return "byte" if self.kind in ("lines", "json", "text") else "row"

    @property
    def text_per_byte(self) -> int:
        """A rough estimate of the bytes of text per byte of the file.

        gzip and zstd shrink prose and code to about a third. Parquet files are compressed more
        lightly and also hold other columns.
        """
        if self.compression:
            return _TEXT_PER_COMPRESSED_BYTE
        return _TEXT_PER_PARQUET_BYTE if self.kind == "parquet" else 1


def check_fields(keep: Sequence[str]) -> None:
    """Check that fields can be columns of ``PREFIX.docs.parquet``; raises ConfigError."""
    names = [name.lower() for name in (*SOURCE_COLUMNS, *keep)]
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(
            f"the fields to keep are {', '.join(map(repr, keep))}, expected names that differ in "
            f"more than the case of letters, and none of {', '.join(SOURCE_COLUMNS)}, which are "
            f"known of every document"
        )


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading texts that a file's name does not determine."""

    txt: TxtMode = "file"
    """Whether a ``.txt`` file is one document, or each of its lines is."""

    max_document_bytes: int = MAX_DOCUMENT_BYTES
    """Limit for one document, or one line of JSON, in bytes without compression."""

    keep: tuple[str, ...] = ()
    """Fields or columns to record for each document, beside its place in its input."""

    has_docs: bool = True
    """Whether the source of each document is recorded beside the shard."""

    def __post_init__(self) -> None:
        check_fields(self.keep)
        if self.keep and not self.has_docs:
            raise ConfigError(
                "--keep records fields in PREFIX.docs.parquet, and --no-docs leaves that file out: "
                "give one of them"
            )


DEFAULT_OPTIONS = ReadOptions()


def format_of(name: str) -> Format | None:
    """The format that a file name implies. None: not an input file."""
    path = PurePosixPath(name.lower())
    kind = _KINDS.get(path.suffix)
    if kind is not None:
        return Format(kind)
    compression = _COMPRESSIONS.get(path.suffix)
    inner = PurePosixPath(path.stem).suffix
    if compression is None or inner in _CONTAINERS or inner in _COMPRESSIONS:
        return None
    # A name such as part-000.gz does not give the inner format; JSON is recognised by content.
    return Format(_KINDS.get(inner, "json"), compression)


def without_suffixes(name: str) -> str:
    """An input file's name without the endings that determine its format."""
    path = PurePosixPath(name)
    if path.suffix.lower() in _COMPRESSIONS:
        path = PurePosixPath(path.stem)
    return path.stem if path.suffix.lower() in _KINDS else path.name


def is_companion(name: str) -> bool:
    """Whether a file is documentation or bookkeeping rather than text to train on."""
    return _COMPANIONS.fullmatch(name.lower()) is not None


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file. A different size or version is a different input."""

    location: str
    """Absolute path, or URL."""

    num_bytes: int

    version: int | str
    """Modification time in nanoseconds; for a URL, the store's version attribute."""

    @classmethod
    def of(cls, location: str | Path) -> "InputFile":
        """The file at a path or URL, as it is now."""
        if is_url(location):
            return _remote_file(str(location))
        with readable(location):
            status = os.stat(location)
        if (kind := file_kind(location, status)) != "regular file":
            raise InputError(f"{location}: is a {kind}, expected a regular file")
        return cls(os.path.abspath(location), status.st_size, status.st_mtime_ns)

    @property
    def identity(self) -> dict[str, str | int]:
        """The identity of this input, different for its earlier versions."""
        return {"input": self.location, "num_bytes": self.num_bytes, "version": self.version}

    def check_unchanged(self) -> None:
        """Raise an ``InputError`` if the file was changed or removed."""
        if is_url(self.location):
            # File systems of stores cache their listings.
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
        """The format that its name implies."""
        found = format_of(PurePosixPath(path_in_url(self.location)).name)
        if found is None:
            raise InputError(f"{self.location}: expected a file named {EXPECTED_NAMES}")
        return found

    def open(self) -> BinaryIO:
        """Open the file for reading with seeks. Use ``readable`` around it to convert errors."""
        if not is_url(self.location):
            return open(self.location, "rb")
        files, path = file_system(self.location)
        return cast(BinaryIO, files.open(path, "rb"))


def work_folder(output: Path) -> Path:
    """The folder for unfinished work and records of an output, which is always local."""
    url = url_of(output)
    if url is None:
        return output / WORK_FOLDER
    from blendtitan.tokenizers.elsewhere import cache_folder

    digest = hashlib.sha256(url.encode()).hexdigest()[:_DIGEST_CHARS]
    return cache_folder() / "outputs" / f"{Path(url).name}-{digest}"


def is_url(location: str | Path) -> bool:
    """Whether a location is a URL, to be read with fsspec."""
    return "://" in str(location)


@contextmanager
def readable(location: str | Path) -> Generator[None]:
    """Convert errors of reading inside the block into an ``InputError`` that names the file."""
    try:
        yield
    except BlendTitanError:
        raise
    except OSError as error:
        raise InputError(f"{location}: cannot be read ({_reason(error)})") from error
    except Exception as error:
        # Every store's library has its own exceptions. Local files only raise those above.
        if not is_url(location):
            raise
        first = str(error).partition("\n")[0]
        raise InputError(f"{location}: cannot be read ({type(error).__name__}: {first})") from error


def _reason(error: BaseException) -> str:
    """Why a file cannot be read, in words.

    fsspec reports any failure of a web server as a missing file, with the URL as its text, and
    keeps the failure as the cause.
    """
    status = getattr(error, "status", None)  # of aiohttp
    if isinstance(status, int):
        return f"status {status} {responses.get(status, '')}".rstrip()
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return "there is no such file" if error.__cause__ is None else _reason(error.__cause__)
    cause = error.__cause__ or error.__context__
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # without addresses
    if isinstance(cause, OSError):
        return _reason(cause)
    return (isinstance(error, OSError) and error.strerror) or f"{error}" or type(error).__name__


def file_kind(path: str | Path, status: os.stat_result) -> str:
    """The kind of a path, for messages. Only a ``regular file`` is safe to read to its end."""
    if stat.S_ISREG(status.st_mode):
        # Kernel files report no size, and some never end.
        is_kernels = status.st_size == 0 and os.path.realpath(path).startswith(_KERNEL_FOLDERS)
        return "file of the kernel" if is_kernels else "regular file"
    return _FILE_KINDS.get(stat.S_IFMT(status.st_mode), "special file")


def path_in_url(location: str) -> str:
    """The path of a location; for a web address, without server, query and fragment."""
    parts = urlsplit(location) if is_url(location) else None
    return parts.path if parts and parts.scheme in _WEB else location


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path within it."""
    # Imported on demand: it takes as long as all other imports together.
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme, _, path = url.partition("://")
        if isinstance(error, ImportError) and scheme in _OBSTORE:
            with suppress(ImportError):
                from obstore.fsspec import FsspecStore

                return FsspecStore(scheme, client_options=_CLIENT, retry_config=_RETRIES), path
        raise InputError(f"{url}: cannot be read: {error}") from error


def _remote_file(url: str) -> InputFile:
    with readable(url):
        files, path = file_system(url)
        info: Mapping[str, Any] = files.info(path)
    if info.get("type", "file") != "file":
        raise InputError(f"{url}: is of type {info['type']!r}, expected a regular file")
    if info.get("size") is None:
        raise InputError(
            f"{url}: the store does not report its size, expected a store that does and that "
            f"supports range requests. Copy the file to this machine first."
        )
    info = {**info, "ETag": info.get("ETag") or info.get("e_tag")}  # s3fs's name, and obstore's
    name = next((name for name in (*_VERSIONS, *_TIMES) if info.get(name)), None)
    return InputFile(url, int(info["size"]), f"{name} {info[name]}" if name else "")
