"""Catalogs kept in a folder between runs, under a name made of everything they depend on."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from blendtitan.errors import ConfigError, CorruptShardError, OutputError
from blendtitan.files import read_file, with_retries
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.catalog_bytes import decode_catalog, encode_catalog
from blendtitan.storage.file_list import ShardList
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

# Part of the name, so that catalogs of other releases are ignored.
_FORMAT = 9
_DIGEST_BYTES = 16


def kept_catalog(
    folder: Path, shards: ShardList, settings: str, build: Callable[[], Catalog]
) -> Catalog:
    """The catalog of these shards and settings: read from ``folder``, or built and kept there.

    ``settings`` is a text of everything that the catalog depends on besides the shards.

    Raises:
        ConfigError: ``folder`` cannot be used.
    """
    identity = shards_identity(shards, settings)
    if identity is None:
        return build()
    path = folder / f"catalog-{identity}"
    try:
        kept = _read(path, shards, settings)
        if kept is not None:
            return kept
        catalog = build()
        payload = encode_catalog(catalog)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _digest(payload) + payload)
    except (OSError, OutputError) as error:
        raise ConfigError(
            f"data_cache_path is {folder}, expected a folder to keep the catalog in: {error}"
        ) from error
    return catalog


def shards_identity(shards: ShardList, settings: str) -> str | None:
    """Digest of shards with their sizes and times, and of settings. None: a shard lacks a file."""
    contents = [signature.contents for signature in shards.signatures if signature is not None]
    if len(contents) < len(shards):
        return None
    # No path and no name of a corpus holds a zero byte.
    texts = "\0".join([f"{_FORMAT}", settings, *shards.prefixes, *shards.corpora])
    numbers = np.array(shards.weights, "<f8").tobytes() + np.array(contents, "<i8").tobytes()
    return _digest(texts.encode(errors="surrogateescape") + b"\0\0" + numbers).hex()


def _read(path: Path, shards: ShardList, settings: str) -> Catalog | None:
    """The catalog in a file. None: there is no file, or it does not hold this catalog."""
    try:
        data = with_retries(lambda: read_file(path), path=str(path))
    except FileNotFoundError:
        return None
    payload = data[_DIGEST_BYTES:]
    try:
        catalog = decode_catalog(payload)
    except CorruptShardError:
        catalog = None
    if catalog and data[:_DIGEST_BYTES] == _digest(payload) and _fits(catalog, shards, settings):
        return catalog
    logger.warning(
        "%s: the cached catalog is damaged, or of another file list; it is built again", path
    )
    return None


def _fits(catalog: Catalog, shards: ShardList, settings: str) -> bool:
    return (
        catalog.prefixes == tuple(shards.prefixes)
        and catalog.corpora == tuple(shards.corpora)
        and catalog.weights.tolist() == shards.weights
        and catalog.settings == settings
    )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
