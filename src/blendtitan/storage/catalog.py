"""The catalog: what a run needs to know of every shard, as one small value.

It is built once, by one process, from the header and a few entries of each ``.idx``; it can be
kept in a folder, and it travels to the other processes as bytes.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError, MixedEodError, OutputError
from blendtitan.storage.catalog_bytes import COLUMNS, decode_catalog, encode_catalog
from blendtitan.storage.file_list import ShardList
from blendtitan.storage.index_format import CODE_OF_DTYPE, DTYPE_CODES, IndexHeader
from blendtitan.storage.open_files import OpenFile
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.retries import RETRIES
from blendtitan.storage.stamps import Stamp
from blendtitan.storage.waiting import waiting_map
from blendtitan.storage.writer import write_atomically

logger = logging.getLogger(__name__)

_FORMAT = 3
_DIGEST_BYTES = 16
# The last tokens of the first document and of so many more are read, spread over the shard, to
# learn whether documents end in EOD.
_EOD_PROBES = 4


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
    settings: str,
) -> Catalog:
    """Open every shard of a file list, check it, and note what a run needs of it.

    Args:
        shards: Shards of the file list.
        cut_documents: From a number of documents to the four cuts of the splits.
        eod_id: Token that every document is to be followed by; None: documents stay as they are.
        settings: Kept in the catalog, to tell whether it fits a configuration.

    Raises:
        ShardError: A shard is missing, corrupt, empty, or mixed as to EOD.
    """

    def probe(shard: tuple[str, Stamp | None]) -> _Probe:
        return _probe(*shard, cut_documents, eod_id)

    probes = waiting_map(probe, list(zip(shards.prefixes, shards.stamps, strict=True)))
    return Catalog(
        prefixes=tuple(shards.prefixes),
        corpora=tuple(shards.corpora),
        weights=np.array(shards.weights, np.float64),
        dtype_codes=np.array([CODE_OF_DTYPE[p.header.dtype] for p in probes], np.uint8),
        num_sequences=np.array([p.header.num_sequences for p in probes], np.int64),
        document_cuts=np.array([p.document_cuts for p in probes], np.int64),
        token_cuts=np.array([p.token_cuts for p in probes], np.int64),
        lacks_eod=np.array([p.lacks_eod for p in probes], np.bool_),
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
        data = RETRIES.tried(path.read_bytes, path=str(path))
    except FileNotFoundError:
        data = b""
    payload = data[_DIGEST_BYTES:]
    if data:
        with suppress(CorruptShardError):
            if data[:_DIGEST_BYTES] == _digest(payload):
                return Catalog.from_bytes(payload)
        logger.warning("%s: the kept catalog is damaged; it is built again", path)
    catalog = build()
    payload = catalog.to_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _digest(payload) + payload)
    return catalog


class _Probe(NamedTuple):
    header: IndexHeader
    document_cuts: list[int]
    token_cuts: list[int]
    lacks_eod: bool


def _probe(
    prefix: str, stamp: Stamp | None, cut_documents: Callable[[int], list[int]], eod_id: int | None
) -> _Probe:
    index = ShardIndex.open(prefix, bin_bytes=stamp and stamp.bin_bytes)
    num_documents = index.num_documents
    cuts = cut_documents(num_documents)
    looked_at = set[int]() if eod_id is None else _eod_probes(num_documents)
    starts = {place: index.document_start(place) for place in {*cuts, *looked_at}}
    tokens = [starts[cut] for cut in cuts]
    if tokens != sorted(tokens):
        raise CorruptShardError(
            f"{index.file.path}: documents {cuts} start at tokens {tokens}, expected growing "
            f"numbers. Copy both files again, or tokenise the shard again."
        )
    lacks_eod = eod_id is not None and _lacks_eod(index, eod_id, [starts[i] for i in looked_at])
    return _Probe(index.header, cuts, tokens, lacks_eod)


def _eod_probes(num_documents: int) -> set[int]:
    """So many first documents of a shard are looked at, whether they end in EOD."""
    spread = (num_documents * i // _EOD_PROBES for i in range(1, _EOD_PROBES))
    return {1, *spread, num_documents} - {0}


def _lacks_eod(index: ShardIndex, eod_id: int, ends: list[int]) -> bool:
    """Whether the documents of a shard end without EOD, judged by a few of them.

    Raises:
        MixedEodError: Some end in EOD and some do not.
    """
    bin_file = OpenFile.open(f"{index.prefix}.bin")
    token_bytes, is_signed = index.dtype.itemsize, index.dtype.kind == "i"

    def ends_in_eod(end: int) -> bool | None:
        """Whether the documents before ``end`` together end in EOD; None if all are empty."""
        if end == 0:
            return None
        token = bin_file.read(token_bytes, at=(end - 1) * token_bytes)
        return int.from_bytes(token, "little", signed=is_signed) == eod_id

    found = {ends_in_eod(end) for end in ends} - {None}
    if len(found) == 1:
        return not found.pop()
    num_documents = index.num_documents
    found = [ends_in_eod(index.document_start(i + 1)) for i in range(num_documents)]
    raise MixedEodError(
        f"{index.prefix}: {found.count(True):,} of {num_documents:,} documents end in EOD "
        f"({eod_id}), expected all or none. Tokenise the shard again, or set append_eod = false "
        f"to read it as it is."
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
