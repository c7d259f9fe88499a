"""Checksums of shards, from the ``shards.catalog`` of the folders that they lie in.

A checksum here is a short digest of those in the catalog. ``shards.catalog`` has one for each part
of a ``.bin``, and the same file may have been written in other parts, so only checksums over the
same parts can be compared.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ShardError
from blendtitan.storage.folder_catalog import CatalogEntry, FolderCatalogs
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_PARTS_BYTES, _CONTENT_BYTES = 4, 8

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
