"""The cost of attention in the rows of a batch, from the lengths of their documents.

With intra-document masking, the attention of a row takes time in proportion to the sum of the
squares of its documents' lengths. Documents that a window cuts count with their tokens inside it.

Finding the documents of a row in an ``.idx`` takes dozens of small reads, and every rank needs the
cost of all rows of a step. So the lengths of all documents of the split are kept in memory.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.stretches import shard_index
from blendtitan.files import io_map
from blendtitan.order.slots import Places
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]

_BLOCK = 32
"""Documents between two that are found by bisection."""
_READ_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class DocumentLens:
    """The lengths of all documents of a split; 2 or 4 bytes for each."""

    lens: NDArray[np.unsignedinteger[Any]]
    """Tokens of each document of each shard, in the catalog's order, inserted EODs included; then
    0. Shape ``(D + 1,)``."""
    block_starts: IntArray
    """Tokens before every 32nd document; then the number of tokens."""
    block_squares: IntArray
    """The squared lengths of the documents before it, summed modulo 2^64; then those of all."""
    shard_starts: IntArray
    """Tokens before each shard. Shape ``(S,)``."""

    @property
    def num_bytes(self) -> int:
        """Size in memory."""
        parts = (self.lens, self.block_starts, self.block_squares, self.shard_starts)
        return sum(part.nbytes for part in parts)

    @classmethod
    def read(cls, rows: Rows) -> Self:
        """Read the ``.idx`` of every shard.

        Raises:
            ShardError: One is missing or damaged.
        """
        tokens = rows.catalog.split_tokens(rows.split)
        parts = io_map(lambda shard: _lens_of(rows, shard), np.flatnonzero(tokens).tolist())
        return cls.of_lens(
            np.concatenate([*parts, np.zeros(1, np.uint16)]), rows.catalog, rows.split
        )

    @classmethod
    def of_lens(cls, lens: NDArray[np.unsignedinteger[Any]], catalog: Catalog, split: int) -> Self:
        """The table of another process's ``lens``."""
        sums = [np.zeros((2, 1), np.int64)]
        for at in range(0, len(lens), _READ_AT_ONCE):
            part = lens[at : at + _READ_AT_ONCE].astype(np.int64)
            blocks = np.arange(0, len(part), _BLOCK)
            sums.append(np.add.reduceat([part, part**2], blocks, axis=1))
        block_starts, block_squares = np.cumsum(np.hstack(sums), axis=1)
        tokens = catalog.split_tokens(split)
        return cls(lens, block_starts, block_squares, np.cumsum(tokens) - tokens)

    def squares(self, starts: IntArray, counts: IntArray) -> IntArray:
        """The sum of the squared lengths of the documents in some stretches.

        Args:
            starts: Tokens before each stretch. Shape ``(n,)``.
            counts: Tokens of each. Shape ``(n,)``.
        """
        stops = starts + counts
        first, first_len, squares_before_first = self._documents_at(starts)
        last, _, squares_before_last = self._documents_at(stops)
        # Of the first document, (len - cut)^2 = len^2 - 2 len cut + cut^2. It ends with the stretch
        # if it holds all of it.
        cut = starts - first
        first_len = np.minimum(first_len, stops - first)
        whole = squares_before_last - squares_before_first
        return whole + (stops - last) ** 2 - 2 * first_len * cut + cut**2

    def _documents_at(self, at: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """The document of each token: the tokens before it, its length, and the squares before it.

        Shapes ``(n,)``. After the last document comes one of no tokens.
        """
        blocks = np.searchsorted(self.block_starts, at, side="right") - 1
        lens = self.lens.take(blocks[:, None] * _BLOCK + np.arange(_BLOCK), mode="clip")
        lens = lens.astype(np.int64)
        is_before = np.cumsum(lens, axis=1) <= (at - self.block_starts[blocks])[:, None]
        before = lens * is_before
        starts = self.block_starts[blocks] + before.sum(axis=1)
        squares = self.block_squares[blocks] + np.einsum("nd,nd->n", before, before)
        return starts, lens[np.arange(len(at)), is_before.argmin(axis=1)], squares


def _lens_of(rows: Rows, shard: int) -> NDArray[np.unsignedinteger[Any]]:
    index, catalog = shard_index(rows, shard), rows.catalog
    first, stop = catalog.document_cuts[shard, rows.split : rows.split + 2].tolist()
    parts = [
        np.diff(index.document_starts(at, min(at + _READ_AT_ONCE, stop)))
        for at in range(first, stop, _READ_AT_ONCE)
    ]
    lens = np.concatenate(parts) + int(catalog.lacks_eod[shard])
    expected = int(catalog.split_tokens(rows.split)[shard])
    if int(lens.sum()) != expected:
        raise index.corrupt(f"documents of {lens.sum():,} tokens", f"{expected:,}, as at the start")
    return lens.astype(np.uint16 if lens.max() <= np.iinfo(np.uint16).max else np.uint32)


def attention_costs(dataset: BlendedDataset, slots: IntArray, lens: DocumentLens) -> IntArray:
    """The sum of the squared lengths of the documents in the row of each slot. Shapes ``(n,)``.

    Where a row joins two parts of a shard, as a remainder may, the parts count separately.
    """
    rows, costs = dataset.rows, np.zeros_like(slots)
    stretches = _stretches(dataset, dataset.order.places(slots))
    while stretches.size:
        samples, in_rows, starts, counts = stretches
        positions = rows.row_starts[in_rows] + starts % rows.num_tokens[in_rows]
        pieces = rows.pieces(positions)
        parts = np.minimum(counts, rows.piece_starts[pieces + 1] - positions)
        in_shards = positions - rows.piece_starts[pieces]
        in_split = lens.shard_starts[rows.piece_shards[pieces]] + in_shards
        np.add.at(costs, samples, lens.squares(in_split, parts))
        # What follows lies in the next shard, or at the start of the row.
        stretches = np.stack([samples, in_rows, starts + parts, counts - parts])[:, counts > parts]
    return costs


def _stretches(dataset: BlendedDataset, places: Places) -> IntArray:
    """The inputs of each sample: its number, the row, the offset in it, the tokens. ``(4, n)``."""
    num_samples = len(places.rows)
    lens = np.full(num_samples, dataset.config.seq_length)
    whole = np.stack([np.arange(num_samples), places.rows, places.starts, lens])
    if places.is_remainder is None:
        return whole
    cut: list[tuple[int, int, int, int]] = []
    for i in np.flatnonzero(places.is_remainder).tolist():
        *others, (start, count) = dataset.order.stretches(places, i)
        # The last token is only a label.
        cut += [(i, int(places.rows[i]), *each) for each in (*others, (start, count - 1))]
    return np.hstack([whole[:, ~places.is_remainder], np.array(cut, np.int64).reshape(-1, 4).T])
