"""What is recorded beside shards: their tokenizer, and what they held when they were written."""

import functools
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MissingShardError, ShardError
from blendtitan.files import RETRIES, DamagedFileError, parse_json, read_file
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.visible import visible_logger

_RECORD_FORMAT = 1
_LONGEST_NAME = 200
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not be waited for
_CATALOG_FORMAT = 1
logger = visible_logger(__name__)
_PARTS_BYTES, _CONTENT_BYTES = 4, 8

RECORD_SUFFIX = ".tokenizer.json"
"""What the name of a record has after the prefix of the shard."""


ENDS_SUFFIX = ".ends.json"
"""What the name of the record of document ends has after the prefix of the shard."""


SHARD_SUFFIXES = (".idx", RECORD_SUFFIX, ENDS_SUFFIX, ".bin")
"""Of all files of a shard, in the order in which they are deleted."""


# A record has about 250 bytes. Whatever is much larger is something else.
_MOST_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """Which tokenizer made a shard, and which shard that is."""

    tokenizer: TokenizerIdentity
    documents: int
    tokens: int

    def describes(self, *, documents: int, tokens: int) -> bool:
        """Whether a shard of this size is the one that the record was written for."""
        return (self.documents, self.tokens) == (documents, tokens)


def record_path(prefix: Path | str) -> Path:
    """Where the record of a shard lies."""
    return Path(f"{prefix}{RECORD_SUFFIX}")


def encode_record(record: TokenizerRecord) -> bytes:
    """The content of a record's file."""
    tokenizer = record.tokenizer
    content = {
        "format": _RECORD_FORMAT,
        "kind": tokenizer.kind,
        "name": tokenizer.name[-_LONGEST_NAME:],
        "hash": tokenizer.hash,
        "vocab_size": tokenizer.vocab_size,
        "eod_id": tokenizer.eod_id,
        "documents": record.documents,
        "tokens": record.tokens,
    }
    return json.dumps(content).encode() + b"\n"


def read_record(prefix: Path | str) -> TokenizerRecord | None:
    """The record beside a shard. None: there is none.

    Raises:
        CorruptShardError: The file is not a record.
        MissingShardError: The file cannot be read.
    """
    path = f"{prefix}{RECORD_SUFFIX}"
    try:
        data = RETRIES.tried(lambda: _content(path), path=path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MissingShardError(
            f"{path}: cannot be read ({RETRIES.described(error)}). Make it readable, or delete it: "
            f"the shard's tokens are then compared with the tokenizer instead."
        ) from error
    try:
        return _decoded(cast("dict[str, Any]", parse_json(data, dict)))
    except DamagedFileError as error:
        raise CorruptShardError(_not_a_record(path, f"it {error}")) from error


def _content(path: str) -> bytes:
    fd = os.open(path, _OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptShardError(_not_a_record(path, "not a regular file"))
        data = os.read(fd, _MOST_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MOST_BYTES:
        raise CorruptShardError(_not_a_record(path, f"more than {_MOST_BYTES:,} bytes"))
    return data


def _not_a_record(path: str, reason: str) -> str:
    return (
        f"{path}: expected the record of the tokenizer that made the shard, in format "
        f"{_RECORD_FORMAT} ({reason}). Copy it again with the shard, or delete it: the shard's "
        f"tokens are then compared with the tokenizer instead."
    )


def _decoded(content: Mapping[str, Any]) -> TokenizerRecord:
    if _count(content, "format") != _RECORD_FORMAT:
        raise DamagedFileError(f"is of format {content['format']}")
    eod_id = _value(content, "eod_id")
    return TokenizerRecord(
        TokenizerIdentity(
            hash=_text(content, "hash"),
            name=_text(content, "name"),
            kind=_text(content, "kind"),
            vocab_size=_count(content, "vocab_size"),
            eod_id=None if eod_id is None else _count(content, "eod_id"),
        ),
        documents=_count(content, "documents"),
        tokens=_count(content, "tokens"),
    )


def _value(content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise DamagedFileError(f"has no {key}")
    return content[key]


def _text(content: Mapping[str, Any], key: str) -> str:
    value = _value(content, key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise DamagedFileError(f"has a {key} that is no text of up to {_LONGEST_NAME} characters")
    return value


def _count(content: Mapping[str, Any], key: str) -> int:
    value = _value(content, key)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise DamagedFileError(f"has a {key} that is no whole number from 0 on")
    return value


CATALOG_FILE = "shards.catalog"
"""Its name in the folder. The content is JSON."""


CHECKSUM = "xxh3_128"
"""The hash of all digests: fast enough to check shards at the speed of the disk."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One shard, by what it held when it was written."""

    documents: int
    tokens: int
    dtype: str

    idx_digest: str
    """Of the whole ``.idx``."""

    bin_digests: tuple[tuple[int, str], ...]
    """Size in bytes and digest of neighbouring parts, which together are the ``.bin``."""


def write_folder_catalog(folder: Path, entries: Mapping[str, CatalogEntry]) -> None:
    """Write the catalog of a folder, unless it is there with the same content.

    Args:
        folder: Folder of the shards.
        entries: Shards by their prefix, relative to the folder.
    """
    shards = {name: asdict(entry) for name, entry in sorted(entries.items())}
    content = {"format": _CATALOG_FORMAT, "checksum": CHECKSUM, "shards": shards}
    data = json.dumps(content, indent=1).encode()
    path = folder / CATALOG_FILE
    found = None
    # What cannot be read cannot be replaced either, which is an error that names the file.
    with suppress(OSError):
        found = read_file(path)
    if found != data:
        write_atomically(path, data)


def read_folder_catalog(folder: Path) -> dict[str, CatalogEntry] | None:
    """Shards that the catalog of a folder lists, by prefix. None: there is no catalog.

    Raises:
        CorruptShardError: The catalog cannot be understood.
        MissingShardError: It cannot be read.
    """
    path = folder / CATALOG_FILE
    try:
        data = RETRIES.tried(lambda: read_file(path), path=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MissingShardError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        content = json.loads(data)
        if (content["format"], content["checksum"]) != (_CATALOG_FORMAT, CHECKSUM):
            raise ValueError(f"format {content['format']} with {content['checksum']}")
        return {name: _entry(**fields) for name, fields in content["shards"].items()}
    # Infinity is a number to Python's JSON, and no int.
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(RecursionError, OverflowError),
    ) as error:
        raise CorruptShardError(
            f"{path}: not a catalog of format {_CATALOG_FORMAT} with {CHECKSUM} "
            f"({_damage(data)}). Copy it again with the shards, or delete it to go without "
            f"checksums."
        ) from error


@dataclass(frozen=True, slots=True)
class _Content:
    format: int
    checksum: str
    shards: dict[str, CatalogEntry]


def _damage(data: bytes) -> str:
    """What a file holds in place of a catalog. A sound one is read faster without these checks."""
    try:
        content = parse_json(data, _Content)
    except DamagedFileError as error:
        return f"it {error}"
    return f"it is of format {content.format} with {content.checksum:.40}"


class FolderCatalogs:
    """The catalogs of the folders that shards lie in, each read once."""

    def __init__(self) -> None:
        self.of_folder = functools.cache(read_folder_catalog)
        self._nearest = functools.cache(self._find_nearest)

    def entry(self, prefix: str) -> CatalogEntry | None:
        """What the nearest catalog at or above a shard's folder lists it with, if it does.

        Args:
            prefix: Absolute path of the shard. There may be 100,000 in few folders.

        Raises:
            ShardError: The catalog cannot be read.
        """
        root, catalog = self._nearest(prefix[: prefix.rfind("/") + 1])
        return catalog.get(prefix[len(root) :]) if catalog else None

    def _find_nearest(self, folder: str) -> tuple[str, dict[str, CatalogEntry] | None]:
        """The nearest folder with a catalog, with a slash at its end, and the catalog."""
        path = Path(folder)
        for root in (path, *path.parents):
            catalog = self.of_folder(root)
            if catalog is not None:
                return f"{str(root).rstrip('/')}/", catalog
        return folder, None


def _entry(
    *,
    documents: int,
    tokens: int,
    dtype: str,
    idx_digest: str,
    bin_digests: list[tuple[int, str]],
) -> CatalogEntry:
    parts = tuple((int(num_bytes), str(digest)) for num_bytes, digest in bin_digests)
    return CatalogEntry(int(documents), int(tokens), str(dtype), str(idx_digest), parts)


CHECKSUM_BYTES = _PARTS_BYTES + _CONTENT_BYTES
"""Bytes of one checksum: a digest of the sizes of the parts, then one of the content."""


def listed_checksums(prefixes: Sequence[str], num_tokens: Sequence[int]) -> NDArray[np.uint8]:
    """The checksum of each shard, of shape ``(S, CHECKSUM_BYTES)``; zeros where none is listed.

    Args:
        prefixes: Absolute paths of the shards.
        num_tokens: Tokens of each. A catalog that lists other numbers is about other files.
    """
    catalogs = FolderCatalogs()
    checksums = np.zeros((len(prefixes), CHECKSUM_BYTES), np.uint8)
    try:
        for shard, prefix in enumerate(prefixes):
            entry = catalogs.entry(prefix)
            if entry is not None and entry.tokens == num_tokens[shard]:
                checksums[shard] = np.frombuffer(_checksum(entry), np.uint8)
    except ShardError as error:
        logger.warning("The checksums of shards are not compared on resume: %s", error)
        checksums[:] = 0
    return checksums


def differ(one: bytes, other: bytes) -> bool:
    """Whether two checksums show different content; not where they cannot be compared."""
    is_comparable = one[:_PARTS_BYTES] == other[:_PARTS_BYTES] and any(one) and any(other)
    return is_comparable and one != other


def _checksum(entry: CatalogEntry) -> bytes:
    sizes = ",".join(str(size) for size, _ in entry.bin_digests)
    contents = ",".join([entry.idx_digest, *(digest for _, digest in entry.bin_digests)])
    return _digest(sizes, _PARTS_BYTES) + _digest(contents, _CONTENT_BYTES)


def _digest(text: str, num_bytes: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=num_bytes).digest()
