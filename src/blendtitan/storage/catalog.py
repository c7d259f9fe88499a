"""The catalog: what a run needs to know of every shard, as one small value.

It is built once, by one process, from the header and a few entries of each ``.idx``; it can be
kept in a folder, and it travels to the other processes as bytes.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError, MixedEodError, OutputError
from blendtitan.regular_files import read_file
from blendtitan.storage.catalog_bytes import COLUMNS, decode_catalog, encode_catalog
from blendtitan.storage.document_ends import DocumentEnds, find_document_ends
from blendtitan.storage.ends_record import read_ends
from blendtitan.storage.file_list import ShardList
from blendtitan.storage.index_format import CODE_OF_DTYPE, DTYPE_CODES, IndexHeader
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.retries import RETRIES
from blendtitan.storage.shard_checksums import listed_checksums
from blendtitan.storage.stamps import Stamp
from blendtitan.storage.waiting import waiting_map
from blendtitan.storage.writer import write_atomically
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_FORMAT = 6
_DIGEST_BYTES = 16
# Bytes that may be read of all shards together to learn how their documents end, beside a small
# sample of each: with thousands of shards, the start then takes little longer than without.
_ENDS_BYTES = 1 << 26

EOD_ENDS, EOD_ENDS_AND_BEGINS, EOD_BEGINS = range(3)
"""Where EOD stands in the documents as they are read: at the end; at both ends, as where BOS and
EOD are one token; at the beginning alone."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """One entry per shard, in file-list order. Arrays have the shape ``(num_shards, ...)``."""

    prefixes: tuple[str, ...]
    """Absolute path of each shard without its suffix."""

    corpora: tuple[str, ...]
    """Corpus of each shard."""

    weights: NDArray[np.float64]
    """Weight of each shard."""

    dtype_codes: NDArray[np.uint8]
    """Token type, as coded in the ``.idx``."""

    num_sequences: NDArray[np.int64]
    """Sequences of each shard."""

    document_cuts: NDArray[np.int64]
    """First document of train, valid and test, then the number of documents. ``(S, 4)``."""

    token_cuts: NDArray[np.int64]
    """Offset in the shard, in tokens, of each document of ``document_cuts``. ``(S, 4)``."""

    lacks_eod: NDArray[np.bool_]
    """True where EOD is inserted after each document while reading."""

    eod_roles: NDArray[np.uint8]
    """Where EOD stands: ``EOD_ENDS``, ``EOD_ENDS_AND_BEGINS`` or ``EOD_BEGINS``."""

    checksums: NDArray[np.uint8]
    """Digests of what ``shards.catalog`` lists, zeros where it lists nothing; see
    ``shard_checksums``."""

    settings: str
    """Text of the settings that the cuts and ``lacks_eod`` depend on."""

    def dtype(self, shard: int) -> np.dtype[Any]:
        """Token type of a shard."""
        return DTYPE_CODES[int(self.dtype_codes[shard])]

    def header(self, shard: int) -> IndexHeader:
        """What the ``.idx`` of a shard begins with."""
        num_documents = int(self.document_cuts[shard, 3])
        return IndexHeader(self.dtype(shard), int(self.num_sequences[shard]), num_documents)

    def split_tokens(self, split: int) -> NDArray[np.int64]:
        """Tokens of each shard in a split, inserted EODs included."""
        documents = np.diff(self.document_cuts)[:, split]
        return np.diff(self.token_cuts)[:, split] + np.where(self.lacks_eod, documents, 0)

    def to_bytes(self) -> bytes:
        """The catalog as bytes that ``from_bytes`` reads."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return encode_catalog((self.prefixes, self.corpora, self.settings), columns)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The catalog that ``to_bytes`` wrote.

        Raises:
            CorruptShardError: It is something else, or contradicts itself.
        """
        (prefixes, corpora, settings), columns = decode_catalog(data)
        return cls(prefixes=prefixes, corpora=corpora, settings=settings, **columns)


def build_catalog(
    shards: ShardList,
    cut_documents: Callable[[int], list[int]],
    *,
    eod_id: int | None,
    inserts_eod: bool,
    settings: str,
) -> Catalog:
    """Open every shard of a file list, check it, and note what a run needs of it.

    Args:
        shards: Shards of the file list.
        cut_documents: From a number of documents to the four cuts of the splits.
        eod_id: Token that tells documents apart; None: they are not told apart.
        inserts_eod: Whether every document is to be followed by ``eod_id``.
        settings: Kept in the catalog, to tell whether it fits a configuration.

    Raises:
        ShardError: A shard is missing, corrupt or empty; or, where EOD is to follow every
            document, some documents end in EOD and others do not.
    """
    allowance = _ENDS_BYTES // max(len(shards), 1)

    def probe(shard: tuple[str, Stamp | None]) -> _Probe:
        return _probe(*shard, cut_documents, eod_id, inserts_eod=inserts_eod, allowance=allowance)

    probes = waiting_map(probe, list(zip(shards.prefixes, shards.stamps, strict=True)))
    _log_ends([p.ends for p in probes if p.ends is not None])
    return Catalog(
        prefixes=tuple(shards.prefixes),
        corpora=tuple(shards.corpora),
        weights=np.array(shards.weights, np.float64),
        dtype_codes=np.array([CODE_OF_DTYPE[p.header.dtype] for p in probes], np.uint8),
        num_sequences=np.array([p.header.num_sequences for p in probes], np.int64),
        document_cuts=np.array([p.document_cuts for p in probes], np.int64),
        token_cuts=np.array([p.token_cuts for p in probes], np.int64),
        lacks_eod=np.array([p.lacks_eod(inserts_eod) for p in probes], np.bool_),
        eod_roles=np.array([p.eod_role(inserts_eod) for p in probes], np.uint8),
        checksums=listed_checksums(shards.prefixes, [p.token_cuts[-1] for p in probes]),
        settings=settings,
    )


def cached_catalog(
    folder: Path, shards: ShardList, settings: str, build: Callable[[], Catalog]
) -> Catalog:
    """The catalog kept in ``folder`` for these shards and settings, else built and kept there.

    Args:
        folder: Made if it is missing.
        shards: Their paths, sizes and times of change are part of the name.
        settings: Text of everything else that the catalog depends on.
        build: Builds the catalog.

    Raises:
        ConfigError: ``folder`` cannot be used.
    """
    try:
        return _cached_catalog(folder, shards, settings, build)
    except (OSError, OutputError) as error:
        raise ConfigError(
            f"data_cache_path is {folder}, expected a folder to keep the catalog in: {error}"
        ) from error


def _cached_catalog(
    folder: Path, shards: ShardList, settings: str, build: Callable[[], Catalog]
) -> Catalog:
    identity = shards_identity(shards, settings)
    if identity is None:
        return build()
    path = folder / f"catalog-{identity}"
    try:
        data = RETRIES.tried(lambda: read_file(path), path=str(path))
    except FileNotFoundError:
        data = b""
    payload = data[_DIGEST_BYTES:]
    if data:
        with suppress(CorruptShardError):
            kept = Catalog.from_bytes(payload)
            if data[:_DIGEST_BYTES] == _digest(payload) and _is_of(kept, shards, settings):
                return kept
        logger.warning(
            "%s: the kept catalog is damaged, or of another file list; it is built again", path
        )
    catalog = build()
    payload = catalog.to_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _digest(payload) + payload)
    return catalog


def _is_of(catalog: Catalog, shards: ShardList, settings: str) -> bool:
    """Whether a catalog is of these shards and settings, whatever its file is called."""
    return (
        catalog.prefixes == tuple(shards.prefixes)
        and catalog.corpora == tuple(shards.corpora)
        and catalog.weights.tolist() == shards.weights
        and catalog.settings == settings
    )


class _Probe(NamedTuple):
    header: IndexHeader
    document_cuts: list[int]
    token_cuts: list[int]
    ends: DocumentEnds | None
    """None: documents are not told apart."""

    def lacks_eod(self, inserts_eod: bool) -> bool:
        return inserts_eod and self.ends is not None and self.ends.lacks_eod

    def eod_role(self, inserts_eod: bool) -> int:
        if self.ends is None or not self.ends.begins_with_eod:
            return EOD_ENDS
        return EOD_ENDS_AND_BEGINS if inserts_eod or self.ends.num_eod else EOD_BEGINS


def _probe(
    prefix: str,
    stamp: Stamp | None,
    cut_documents: Callable[[int], list[int]],
    eod_id: int | None,
    *,
    inserts_eod: bool,
    allowance: int,
) -> _Probe:
    index = ShardIndex.open(prefix, bin_bytes=stamp and stamp.bin_bytes)
    cuts = cut_documents(index.num_documents)
    starts = {place: index.document_start(place) for place in set(cuts)}
    tokens = [starts[cut] for cut in cuts]
    if tokens != sorted(tokens):
        raise CorruptShardError(
            f"{index.file.path}: documents {cuts} start at tokens {tokens}, expected growing "
            f"numbers. Copy both files again, or tokenise the shard again."
        )
    if eod_id is None:
        return _Probe(index.header, cuts, tokens, None)
    ends = stamp and read_ends(prefix, stamp, eod_id)
    if ends is None or ends.num_documents != index.num_documents:
        ends = find_document_ends(index, eod_id, allowance=allowance)
    if inserts_eod and ends.is_mixed:
        more = "" if ends.is_complete else " `blendtitan verify` counts them all."
        raise MixedEodError(
            f"{prefix}: {ends.described()}, expected all or none.{more} Tokenise the shard again, "
            f"or set append_eod = false to read it as it is."
        )
    return _Probe(index.header, cuts, tokens, ends)


def _log_ends(found: list[DocumentEnds]) -> None:
    """Say of how many documents it is known how they end, where it is not of all."""
    sampled = [ends for ends in found if not ends.is_complete]
    if sampled:
        logger.info(
            "Documents were looked at for EOD: all of them in %s of %s shards, and in the other "
            "shards a sample of %s of %s. `blendtitan verify --eod-id` looks at all, once, and "
            "keeps what it finds beside the shards.",
            *(f"{len(found) - len(sampled):,}", f"{len(found):,}"),
            f"{sum(ends.num_checked for ends in sampled):,}",
            f"{sum(ends.num_documents for ends in sampled):,}",
        )


def shards_identity(shards: ShardList, settings: str) -> str | None:
    """Name made of all that a catalog depends on; None: a shard misses a file, so there is none.

    Args:
        shards: Their paths, corpora, weights, sizes and times of change enter the name.
        settings: Text of everything else.
    """
    contents = [stamp.contents for stamp in shards.stamps if stamp is not None]
    if len(contents) < len(shards):
        return None
    # No path and no name of a corpus holds a zero byte.
    texts = "\0".join([f"{_FORMAT}", settings, *shards.prefixes, *shards.corpora])
    numbers = np.array(shards.weights, "<f8").tobytes() + np.array(contents, "<i8").tobytes()
    return _digest(texts.encode(errors="surrogateescape") + b"\0\0" + numbers).hex()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
