"""Rows: the documents of one split, laid end to end, and the reading of windows from them.

Windows are cut from a row: one shard, or all shards of a corpus. It consists of pieces, one
per shard. The rows of a split are kept as columns, so that many slots are resolved in a few NumPy
calls. A *position* counts the tokens of all rows, piece after piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.catalog import Catalog
from blendtitan.storage.reader import OpenFile, OpenFiles

if TYPE_CHECKING:
    from blendtitan.dataset.removed import RemovedSpans

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one split. Columns of rows have the shape ``(R,)``, of pieces ``(P,)``."""

    catalog: Catalog
    files: OpenFiles
    split: int
    """Place of the split among train, valid, test."""

    eod_id: int | None
    """Token inserted after the documents of shards that lack it."""

    row_starts: IntArray
    """Position of the first token of each row."""

    num_tokens: IntArray
    """Tokens of each row, inserted EODs included."""

    piece_starts: IntArray
    """Position of the first token of each piece, growing; then the end of the last. ``(P + 1,)``"""

    piece_shards: IntArray
    """Number of the shard of each piece."""

    piece_bytes: IntArray
    """Byte offset in its ``.bin`` of each piece's first token."""

    piece_token_bytes: IntArray
    """Bytes of one token of each piece."""

    dtype: np.dtype[Any]
    """Token type that all tokens fit: that of all shards, else int64."""

    is_remote: bool
    """Whether a shard is in object storage."""

    removed: "RemovedSpans | None" = None
    """Documents that are read as EOD."""

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        files: OpenFiles,
        shards_of_row: Sequence[Sequence[int]],
        *,
        split: int,
        eod_id: int | None,
    ) -> Self:
        """Lay out rows of the given shards. Every row has at least one token."""
        shards = np.array([shard for row in shards_of_row for shard in row], np.int64)
        piece_starts = np.concatenate([[0], np.cumsum(catalog.split_tokens(split)[shards])])
        first_piece = np.cumsum([0, *(len(row) for row in shards_of_row)])
        row_starts = piece_starts[first_piece]
        # Tokens of several types, or an EOD that is too large for theirs, are read as int64.
        dtypes = [catalog.dtype(shard) for shard in shards]
        fits = len(set(dtypes)) == 1
        if eod_id is not None and (catalog.lacks_eod[shards].any() or catalog.removed):
            fits = fits and eod_id <= np.iinfo(dtypes[0]).max
        token_bytes = np.array([dtype.itemsize for dtype in dtypes], np.int64)
        return cls(
            catalog=catalog,
            files=files,
            split=split,
            eod_id=eod_id,
            row_starts=row_starts[:-1],
            num_tokens=np.diff(row_starts),
            piece_starts=piece_starts,
            piece_shards=shards,
            piece_bytes=catalog.token_cuts[shards, split] * token_bytes,
            piece_token_bytes=token_bytes,
            dtype=dtypes[0] if fits else np.dtype(np.int64),
            is_remote=any("://" in prefix for prefix in catalog.prefixes),
        )

    def pieces(self, positions: IntArray) -> IntArray:
        """The piece that holds each position; pieces without tokens hold none."""
        return np.searchsorted(self.piece_starts, positions, side="right") - 1

    def contiguous_bytes(self, pieces: IntArray, positions: IntArray, count: int) -> IntArray:
        """Byte offsets of ``count`` tokens from each position if they are contiguous, else -1."""
        shards = self.piece_shards[pieces]
        whole = positions + count <= self.piece_starts[pieces + 1]
        offsets = positions - self.piece_starts[pieces]
        at = self.piece_bytes[pieces] + offsets * self.piece_token_bytes[pieces]
        return np.where(whole & ~self.catalog.lacks_eod[shards], at, -1)

    def open_bin(self, shard: int) -> OpenFile:
        """The open ``.bin`` of a shard, which is the file that the catalog describes."""
        file = self.files.open(
            self.catalog.prefixes[shard] + ".bin",
            lambda: int(self.catalog.token_cuts[shard, 3]) * self.catalog.dtype(shard).itemsize,
        )
        if self.is_remote:
            from blendtitan.storage.remote_file import check_version

            check_version(file, int(self.catalog.file_versions[shard, 1]))
        return file

    def read_contiguous(self, shard: int, at_bytes: int, out: NDArray[np.integer]) -> None:
        """Fill ``out``, of any integer type, with contiguous tokens of a shard."""
        # Rows of int64 alone may have shards of other types.
        dtype = self.dtype if self.dtype.itemsize < 8 else self.catalog.dtype(shard)
        tokens = out if out.dtype == dtype else np.empty(len(out), dtype)
        self.open_bin(shard).read_into(tokens, at=at_bytes)
        if tokens is not out:
            out[:] = tokens
