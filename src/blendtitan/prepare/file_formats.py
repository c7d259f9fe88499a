"""File formats by name: how an input is read, and which other files may lie beside it."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["lines", "json", "text", "csv", "tsv", "parquet", "arrow"]
Compression = Literal["", "gz", "zst", "xz", "bz2"]

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

SUFFIXES = (*_KINDS, *_COMPRESSIONS)
"""Endings of the names of input files, in any case."""

MAX_DOCUMENT_BYTES = 16 << 20
"""Default of the longest document, as stored: 16 MiB. Longer ones are rejected.

SentencePiece needs some 45 times as much memory to encode one."""

TxtMode = Literal["file", "line"]

# Formats that hold several columns or files, and are never compressed as a whole.
_CONTAINERS = (".parquet", ".arrow", ".feather", ".tar", ".zip", ".7z", ".rar")

# Documentation, checksums and bookkeeping that usually lie beside text.
_COMPANION_STEMS = re.compile(
    r"(readme|licen[sc]e|copying|notice|changelog|changes|citation|authors|contributing)"
    r"([._-][\w.-]*)?",
    re.IGNORECASE,
)
_COMPANION_NAMES = frozenset(
    (
        *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
        *("_success", "_metadata", "_common_metadata", "checksums", "checksums.txt"),
        *(f"{hash_name}sums" for hash_name in ("md5", "sha1", "sha256", "sha512")),
        *(f"{hash_name}sums.txt" for hash_name in ("md5", "sha1", "sha256", "sha512")),
    )
)
_COMPANION_SUFFIXES = (".md", ".rst", ".md5", ".sha1", ".sha256", ".sha512", ".sfv", ".crc")


_TEXT_PER_COMPRESSED_BYTE = 3
_TEXT_PER_PARQUET_BYTE = 2


@dataclass(frozen=True, slots=True)
class Format:
    """How a file is read, as its name says."""

    kind: Kind
    compression: Compression = ""

    @property
    def text_per_byte(self) -> int:
        """Bytes of text for each byte of a file, as a rough estimate.

        Prose and code shrink to about a third with gzip or zstd. Parquet files are compressed
        more lightly, and have other columns beside the text.
        """
        if self.compression:
            return _TEXT_PER_COMPRESSED_BYTE
        return _TEXT_PER_PARQUET_BYTE if self.kind == "parquet" else 1


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How texts are taken from files, where their names leave it open."""

    txt: TxtMode = "file"
    """Documents of a ``.txt`` file: the whole file, or each of its lines."""

    max_document_bytes: int = MAX_DOCUMENT_BYTES
    """Bytes of the longest document, or line of JSON, as stored without compression."""


DEFAULT_OPTIONS = ReadOptions()


def format_of(name: str) -> Format | None:
    """The format that a file's name tells. None: it is not one of ``SUFFIXES``."""
    path = PurePosixPath(name.lower())
    kind = _KINDS.get(path.suffix)
    if kind is not None:
        return Format(kind)
    compression = _COMPRESSIONS.get(path.suffix)
    inner = PurePosixPath(path.stem).suffix
    if compression is None or inner in _CONTAINERS or inner in _COMPRESSIONS:
        return None
    # A name such as part-000.gz does not say what is compressed. JSON is told from its content.
    return Format(_KINDS.get(inner, "json"), compression)


def without_suffixes(name: str) -> str:
    """The name of an input file without the endings that say how it is read."""
    path = PurePosixPath(name)
    if path.suffix.lower() in _COMPRESSIONS:
        path = PurePosixPath(path.stem)
    return path.stem if path.suffix.lower() in _KINDS else path.name


def is_companion(name: str) -> bool:
    """Whether a file usually lies beside text without being text to train on."""
    lower = name.lower()
    return (
        lower in _COMPANION_NAMES
        or lower.endswith(_COMPANION_SUFFIXES)
        or _COMPANION_STEMS.fullmatch(lower) is not None
    )


def expected_names() -> str:
    """The names of input files, for people."""
    return " or ".join(f"*{suffix}" for suffix in SUFFIXES)
