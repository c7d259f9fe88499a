"""The catalog: the facts about every shard that a run needs, as one small value.

One process builds it from the header and a few entries of each ``.idx``, and sends it to the others
as bytes; see ``catalog_bytes.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.files import io_map
from blendtitan.storage.file_list import ShardList
from blendtitan.storage.index_format import CODE_OF_DTYPE, DTYPE_CODES, IndexHeader
from blendtitan.storage.reader import FileSignature, ShardIndex
from blendtitan.storage.records import DocumentEnds, listed_checksums, read_ends
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.storage.removed_documents import RemovedDocuments

logger = visible_logger(__name__)

# Bytes to read from all shards together to find their document ends, besides a small sample of
# each. With thousands of shards, this keeps the start fast.
_ENDS_BYTES = 1 << 26

EOD_ENDS, EOD_ENDS_AND_BEGINS, EOD_BEGINS = range(3)
"""The role of EOD in documents as they are read: at the end; at both ends, as when BOS and
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
    """Offset in the ``.bin``, in tokens, of each document of ``document_cuts``. ``(S, 4)``."""

    lacks_eod: NDArray[np.bool_]
    """True where EOD is inserted after each document while reading."""

    eod_roles: NDArray[np.uint8]
    """The role of EOD: ``EOD_ENDS``, ``EOD_ENDS_AND_BEGINS`` or ``EOD_BEGINS``."""

    checksums: NDArray[np.uint8]
    """Digests of the entries of ``shards.catalog``, or zeros without an entry; see ``records``."""

    file_versions: NDArray[np.int64]
    """A number of the content of ``.idx`` and ``.bin`` in object storage, else 0. ``(S, 2)``."""

    settings: str
    """Text of the settings that the cuts and ``lacks_eod`` depend on."""

    removed: "RemovedDocuments | None" = None
    """Documents that are no longer read."""

    def dtype(self, shard: int) -> np.dtype[Any]:
        """Token type of a shard."""
        return DTYPE_CODES[int(self.dtype_codes[shard])]

    def header(self, shard: int) -> IndexHeader:
        """Header of a shard's ``.idx``."""
        num_documents = int(self.document_cuts[shard, 3])
        return IndexHeader(self.dtype(shard), int(self.num_sequences[shard]), num_documents)

    def shards_of_corpora(self) -> dict[str, list[int]]:
        """Numbers of the shards of each corpus, in file-list order; corpora sorted by name."""
        shards_of: dict[str, list[int]] = {name: [] for name in sorted(set(self.corpora))}
        for shard, name in enumerate(self.corpora):
            shards_of[name].append(shard)
        return shards_of

    def split_tokens(self, split: int) -> NDArray[np.int64]:
        """Tokens of each shard in a split, inserted EODs included."""
        documents = np.diff(self.document_cuts)[:, split]
        return np.diff(self.token_cuts)[:, split] + np.where(self.lacks_eod, documents, 0)


def build_catalog(
    shards: ShardList,
    cut_documents: Callable[[int], list[int]],
    *,
    eod_id: int | None,
    inserts_eod: bool,
    settings: str,
) -> Catalog:
    """Open and check every shard of a file list, and collect the facts that a run needs.

    Args:
        shards: Shards of the file list.
        cut_documents: Maps a number of documents to the four cuts of the splits.
        eod_id: Token at which documents end. None: the run does not need document ends.
        inserts_eod: Whether every document is to be followed by ``eod_id``.
        settings: Kept in the catalog, to check whether it fits a configuration.

    Raises:
        ShardError: A shard is missing, corrupt or empty; or, if EOD must follow every
            document, some documents end in EOD and others do not.
    """
    allowance = _ENDS_BYTES // max(len(shards), 1)

    def probe(shard: tuple[str, FileSignature | None]) -> _Probe:
        prefix, signature = shard
        index = ShardIndex.open(prefix, bin_bytes=signature and signature.bin_bytes)
        cuts = cut_documents(index.num_documents)
        ends = None
        if eod_id is not None:
            ends = _document_ends(index, signature, eod_id, allowance=allowance)
        if inserts_eod and ends is not None and ends.is_mixed:
            from blendtitan.storage.shard_faults import mixed_error

            raise mixed_error(prefix, ends)
        version = signature.contents[1::2] if signature and "://" in prefix else (0, 0)
        return _Probe(index.header, cuts, _token_cuts(index, cuts), index.num_tokens, ends, version)

    probes = io_map(probe, list(zip(shards.prefixes, shards.signatures, strict=True)))
    if any(p.ends is not None and not p.ends.is_complete for p in probes):
        from blendtitan.storage.ends import log_sample

        log_sample([p.ends for p in probes if p.ends is not None])
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
        checksums=listed_checksums(shards.prefixes, [p.num_tokens for p in probes]),
        file_versions=np.array([p.file_versions for p in probes], np.int64),
        settings=settings,
    )


class _Probe(NamedTuple):
    header: IndexHeader
    document_cuts: list[int]
    token_cuts: list[int]
    num_tokens: int
    ends: DocumentEnds | None
    file_versions: tuple[int, ...]

    def lacks_eod(self, inserts_eod: bool) -> bool:
        return inserts_eod and self.ends is not None and self.ends.lacks_eod

    def eod_role(self, inserts_eod: bool) -> int:
        if self.ends is None or not self.ends.begins_with_eod:
            return EOD_ENDS
        return EOD_ENDS_AND_BEGINS if inserts_eod or self.ends.num_eod else EOD_BEGINS


def _token_cuts(index: ShardIndex, document_cuts: list[int]) -> list[int]:
    starts = {cut: index.document_start(cut) for cut in set(document_cuts)}
    cuts = [starts[cut] for cut in document_cuts]
    if cuts != sorted(cuts):
        raise CorruptShardError(
            f"{index.file.path}: documents {document_cuts} start at tokens {cuts}, expected "
            f"growing numbers. Copy both files again, or tokenise the shard again."
        )
    return cuts


def _document_ends(
    index: ShardIndex, signature: FileSignature | None, eod_id: int, *, allowance: int
) -> DocumentEnds:
    ends = signature and read_ends(str(index.prefix), signature, eod_id)
    if ends is None or ends.num_documents != index.num_documents:
        from blendtitan.storage.ends import find_document_ends

        return find_document_ends(index, eod_id, allowance=allowance)
    return ends
