"""Records beside shards: which tokenizer made a shard, and what it held when it was written.

``PREFIX.tokenizer.json`` names the tokenizer. It also names the number of documents and tokens of
its shard, so that it is not believed once another program has replaced the shard.
``shards.catalog``, in a folder of shards, lists digests of their files, to prove that a copy is
whole.
"""

import errno
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MissingShardError, ShardError
from blendtitan.files import RETRIES, DamagedFileError, parse_json, read_file
from blendtitan.identity import TokenizerIdentity
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

RECORD_SUFFIX = ".tokenizer.json"
"""Suffix of the record of a shard's tokenizer."""

ENDS_SUFFIX = ".ends.json"
"""Suffix of the record of how a shard's documents end."""

SHARD_SUFFIXES = (".idx", RECORD_SUFFIX, ENDS_SUFFIX, ".bin")
"""Suffixes of all files of a shard, in the order in which they are deleted."""

CATALOG_FILE = "shards.catalog"
"""Name of the catalog of a folder. The content is JSON."""

CHECKSUM = "xxh3_128"
"""The hash of all digests: fast enough to check shards at the speed of the disk."""

# A record has about 250 bytes. Whatever is much larger is something else.
_MOST_RECORD_BYTES = 16_384
_LONGEST_NAME = 200
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_NAME)]

_PARTS_BYTES, _CONTENT_BYTES = 4, 8

CHECKSUM_BYTES = _PARTS_BYTES + _CONTENT_BYTES
"""Bytes of one checksum: a digest of the sizes of the parts, then one of the content."""


@dataclass(frozen=True, slots=True)
class TokenizerRecord:
    """The tokenizer that made a shard, and the size of that shard."""

    tokenizer: TokenizerIdentity
    documents: int
    tokens: int

    def describes(self, *, documents: int, tokens: int) -> bool:
        """Whether a shard of this size is the one that the record was written for."""
        return (self.documents, self.tokens) == (documents, tokens)


class _StoredRecord(msgspec.Struct):
    format: Literal[1]
    kind: _Text
    name: _Text
    hash: _Text
    vocab_size: Count
    eod_id: Count | None
    documents: Count
    tokens: Count


def record_path(prefix: Path | str) -> Path:
    """Path of the record of a shard's tokenizer."""
    return Path(f"{prefix}{RECORD_SUFFIX}")


def encode_record(record: TokenizerRecord) -> bytes:
    """The content of a record's file."""
    tokenizer = record.tokenizer
    stored = _StoredRecord(
        format=1,
        kind=tokenizer.kind,
        name=tokenizer.name[-_LONGEST_NAME:],
        hash=tokenizer.hash,
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        documents=record.documents,
        tokens=record.tokens,
    )
    return json.dumps(msgspec.structs.asdict(stored)).encode() + b"\n"


def read_record(prefix: Path | str) -> TokenizerRecord | None:
    """The record beside a shard. None: there is none.

    Raises:
        CorruptShardError: The file is not a record.
        MissingShardError: The file cannot be read.
    """
    path = f"{prefix}{RECORD_SUFFIX}"
    try:
        data = RETRIES.tried(lambda: read_file(path, most_bytes=_MOST_RECORD_BYTES), path=path)
        found = parse_json(data, _StoredRecord)
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        raise _not_a_record(path, error) from error
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EINVAL, errno.EFBIG):
            raise _not_a_record(path, error.strerror) from error
        raise MissingShardError(
            f"{path}: cannot be read ({RETRIES.described(error)}). Make it readable, or delete it: "
            f"the shard's tokens are then compared with the tokenizer instead."
        ) from error
    identity = TokenizerIdentity(
        hash=found.hash,
        name=found.name,
        kind=found.kind,
        vocab_size=found.vocab_size,
        eod_id=found.eod_id,
    )
    return TokenizerRecord(identity, found.documents, found.tokens)


def _not_a_record(path: str, reason: object) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: expected the record of the tokenizer that made the shard, in format 1 "
        f"({reason}). Copy it again with the shard, or delete it: the shard's tokens are then "
        f"compared with the tokenizer instead."
    )


class CatalogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One shard, by what it held when it was written."""

    documents: Count
    tokens: Count
    dtype: str

    idx_digest: str
    """Of the whole ``.idx``."""

    bin_digests: tuple[tuple[Count, str], ...]
    """Size in bytes and digest of neighbouring parts, which together are the ``.bin``."""


class _FolderCatalog(msgspec.Struct):
    format: Literal[1]
    checksum: Literal["xxh3_128"]
    shards: dict[str, CatalogEntry]


def write_folder_catalog(folder: Path, entries: Mapping[str, CatalogEntry]) -> None:
    """Write the catalog of a folder, unless it is there with the same content.

    Args:
        folder: Folder of the shards.
        entries: Shards by their prefix, relative to the folder.
    """
    from blendtitan.storage.atomic_files import write_atomically

    shards = {name: msgspec.structs.asdict(entry) for name, entry in sorted(entries.items())}
    content = {"format": 1, "checksum": CHECKSUM, "shards": shards}
    data = json.dumps(content, indent=1).encode()
    path = folder / CATALOG_FILE
    found = None
    # A file that cannot be read cannot be replaced either, which is an error that names it.
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
        return parse_json(data, _FolderCatalog).shards
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFileError as error:
        raise CorruptShardError(
            f"{path}: not a catalog of format 1 with {CHECKSUM} (it {error}). Copy it again with "
            f"the shards, or delete it to go without checksums."
        ) from error
    except OSError as error:
        raise MissingShardError(f"{path}: cannot be read ({error.strerror})") from error


class FolderCatalogs:
    """The catalogs of the folders that shards lie in, each read once."""

    def __init__(self) -> None:
        self.of_folder = functools.cache(read_folder_catalog)
        self._nearest = functools.cache(self._find_nearest)

    def entry(self, prefix: str) -> CatalogEntry | None:
        """The entry of a shard in the nearest catalog at or above its folder, if it is listed.

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


def listed_checksums(prefixes: Sequence[str], num_tokens: Sequence[int]) -> NDArray[np.uint8]:
    """A short digest of what ``shards.catalog`` lists for each shard; zeros if it is not listed.

    The same file may have been written in other parts, and only checksums over the same parts can
    be compared: see ``differ``.

    Args:
        prefixes: Absolute paths of the shards.
        num_tokens: Tokens of each. A catalog that lists other numbers is about other files.

    Returns:
        Shape ``(S, CHECKSUM_BYTES)``.
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
    """Whether two checksums show different content; False where they cannot be compared."""
    is_comparable = one[:_PARTS_BYTES] == other[:_PARTS_BYTES] and any(one) and any(other)
    return is_comparable and one != other


def _checksum(entry: CatalogEntry) -> bytes:
    sizes = ",".join(str(size) for size, _ in entry.bin_digests)
    contents = ",".join([entry.idx_digest, *(digest for _, digest in entry.bin_digests)])
    return _digest(sizes, _PARTS_BYTES) + _digest(contents, _CONTENT_BYTES)


def _digest(text: str, num_bytes: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=num_bytes).digest()
