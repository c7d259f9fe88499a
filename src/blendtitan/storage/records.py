"""Records beside shards that a run reads: catalogs of folders, and document ends.

``shards.catalog`` lists digests of the files of a folder's shards, to verify copies. A run keeps a
short digest of each entry, and detects replaced shards on resume.

``PREFIX.ends.json`` counts the documents of a shard that begin or end with EOD. It holds sizes and
times of change of both files of the shard and is used only while they are the same. It can be
deleted at any time.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MissingShardError, ShardError
from blendtitan.files import DamagedFileError, decode_json, path_of, read_file, with_retries
from blendtitan.storage.reader import FileSignature
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

RECORD_SUFFIX = ".tokenizer.json"
"""Suffix of the record of a shard's tokenizer."""

ENDS_SUFFIX = ".ends.json"
"""Suffix of the record of a shard's document ends."""

CATALOG_FILE = "shards.catalog"
"""Name of the catalog of a folder. The content is JSON."""

CHECKSUM = "xxh3_128"
"""The hash of all digests: fast enough to check shards at the speed of the disk."""


# A record of ends has about 200 bytes. A much larger file is not a record.
_MOST_ENDS_BYTES = 4096

_PARTS_BYTES, _CONTENT_BYTES = 4, 8

CHECKSUM_BYTES = _PARTS_BYTES + _CONTENT_BYTES
"""Bytes of one checksum: a digest of the sizes of the parts, then one of the content."""


class CatalogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of one shard when it was written."""

    documents: Count
    tokens: Count
    dtype: str

    idx_digest: str
    """Digest of the whole ``.idx``."""

    bin_digests: tuple[tuple[Count, str], ...]
    """Size in bytes and digest of consecutive parts, which together are the ``.bin``."""


class _FolderCatalog(msgspec.Struct):
    format: Literal[1]
    checksum: Literal["xxh3_128"]
    shards: dict[str, CatalogEntry]


def read_folder_catalog(folder: Path) -> dict[str, CatalogEntry] | None:
    """Shards that the catalog of a folder lists, by prefix. None: there is no catalog.

    Raises:
        CorruptShardError: The catalog is damaged.
        MissingShardError: It cannot be read.
    """
    path = folder / CATALOG_FILE
    try:
        data = with_retries(lambda: read_file(path), path=str(path))
        return decode_json(data, _FolderCatalog).shards
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
    """The catalogs of shards' folders, each read once."""

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
        path = path_of(folder)
        for root in (path, *path.parents):
            catalog = self.of_folder(root)
            if catalog is not None:
                return f"{str(root).rstrip('/')}/", catalog
        return folder, None


def listed_checksums(prefixes: Sequence[str], num_tokens: Sequence[int]) -> NDArray[np.uint8]:
    """A short digest of each shard's entry in ``shards.catalog``; zeros if it is not listed.

    A file may be listed in other parts, and only checksums over the same parts can be compared:
    see ``differ``.

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
    """Whether two checksums show different content; False if they cannot be compared."""
    is_comparable = one[:_PARTS_BYTES] == other[:_PARTS_BYTES] and any(one) and any(other)
    return is_comparable and one != other


def _checksum(entry: CatalogEntry) -> bytes:
    sizes = ",".join(str(size) for size, _ in entry.bin_digests)
    contents = ",".join([entry.idx_digest, *(digest for _, digest in entry.bin_digests)])
    return _digest(sizes, _PARTS_BYTES) + _digest(contents, _CONTENT_BYTES)


def _digest(text: str, num_bytes: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=num_bytes).digest()


class DocumentEnds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first and last tokens of the documents of one shard."""

    eod_id: Count
    num_documents: Count
    """Documents of the shard."""

    num_checked: Count
    """Documents that were checked."""

    num_filled: Count
    """Checked documents that have tokens. The others neither begin nor end."""

    num_eod: Count
    """Checked documents whose last token is EOD."""

    num_begin: Count
    """Checked documents whose first token is EOD."""

    @property
    def is_complete(self) -> bool:
        """Whether all documents were checked."""
        return self.num_checked == self.num_documents

    @property
    def is_mixed(self) -> bool:
        """Whether some of the documents end in EOD and some do not."""
        return 0 < self.num_eod < self.num_filled

    @property
    def lacks_eod(self) -> bool:
        """Whether none ends in EOD."""
        return self.num_eod == 0

    @property
    def begins_with_eod(self) -> bool:
        """Whether all begin with EOD, as when BOS and EOD are one token."""
        return self.num_begin == self.num_filled > 0

    def described(self) -> str:
        """The number of checked documents that end in EOD, in words."""
        found = f"{self.num_eod:,} of {self.num_filled:,} documents"
        if not self.is_complete:
            found += f" checked ({self.num_documents:,} in total)"
        return f"{found} end in EOD ({self.eod_id})"


class _StoredEnds(DocumentEnds, frozen=True, kw_only=True):
    format: Literal[1]
    contents: tuple[int, int, int, int]
    """Sizes and times of change of the shard's files."""


def read_ends(
    prefix: str, signature: FileSignature, eod_id: int | None = None
) -> DocumentEnds | None:
    """The recorded ends of a shard's documents, for this EOD or for any.

    None: no record, or a record of other files or another EOD.
    """
    try:
        data = read_file(f"{prefix}{ENDS_SUFFIX}", most_bytes=_MOST_ENDS_BYTES)
        stored = decode_json(data, _StoredEnds)
    except (OSError, DamagedFileError):
        return None
    is_sound = max(stored.num_eod, stored.num_begin) <= stored.num_filled <= stored.num_documents
    is_current = stored.contents == signature.contents and eod_id in (None, stored.eod_id)
    if not (is_sound and is_current and stored.is_complete):
        return None
    return DocumentEnds(*msgspec.structs.astuple(stored)[: len(DocumentEnds.__struct_fields__)])
