"""The cost of attention in the rows of a batch, from the lengths of their documents.

With intra-document masking, the attention of a row takes time in proportion to the sum of the
squares of its documents' lengths. Documents that a window cuts count with their tokens inside it.

Finding the documents of a row in an ``.idx`` takes dozens of small reads, and every rank needs the
cost of all rows of a step. So the lengths of all documents of the split are kept in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.stretches import pieces_of, shard_index
from blendtitan.files import io_map
from blendtitan.order.slots import Places
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]

_BLOCK = 32
"""Documents between two that are found by bisection."""
_READ_AT_ONCE = 1 << 16
# So many lengths fit into a processor's cache.
_LENS_AT_ONCE = 1 << 15


@dataclass(frozen=True, slots=True)
class DocumentLens:
    """The lengths of all documents of a split; 2 or 4 bytes for each."""

    lens: NDArray[np.unsignedinteger[Any]]
    """Tokens of each document of each shard, in the catalog's order, inserted EODs included; then
    0. Shape ``(D + 1,)``."""
    block_starts: IntArray
    """Tokens before every 32nd document; then the number of tokens."""
    shard_starts: IntArray
    """Tokens before each shard. Shape ``(S,)``."""

    @property
    def num_bytes(self) -> int:
        """Size in memory."""
        return self.lens.nbytes + self.block_starts.nbytes + self.shard_starts.nbytes

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
        sums = np.add.reduceat(lens, np.arange(0, len(lens), _BLOCK), dtype=np.int64)
        tokens = catalog.split_tokens(split)
        return cls(lens, np.cumsum([0, *sums]), np.cumsum(tokens) - tokens)

    def squares(self, starts: IntArray, counts: IntArray) -> IntArray:
        """The sum of the squared lengths of the documents in some stretches.

        Args:
            starts: Tokens before each stretch. Shape ``(n,)``.
            counts: Tokens of each. Shape ``(n,)``.
        """
        stops = starts + counts
        first = np.searchsorted(self.block_starts, starts, side="right") - 1
        blocks = np.searchsorted(self.block_starts, stops) - first
        found = np.empty_like(starts)
        for part in _parts(blocks):
            low, high = starts[part, None], stops[part, None]
            at = first[part, None] * _BLOCK + np.arange(blocks[part].max() * _BLOCK)
            ends = np.cumsum(self.lens.take(at, mode="clip"), axis=1, dtype=np.int64)
            ends += self.block_starts[first[part], None]
            inside = np.diff(np.clip(ends, low, high, out=ends), axis=1, prepend=low)
            found[part] = np.einsum("nd,nd->n", inside, inside)
        return found


def _parts(blocks: IntArray) -> Iterator[IntArray]:
    """Stretches of similar numbers of blocks, few enough to be looked at together."""
    order = np.argsort(-blocks)
    start = 0
    while start < len(order):
        stop = start + max(1, _LENS_AT_ONCE // (_BLOCK * int(blocks[order[start]])))
        yield order[start:stop]
        start = stop


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
    places, rows, seq_len = dataset.order.places(slots), dataset.rows, dataset.config.seq_length
    firsts, is_whole = places.starts, np.ones(len(slots), np.bool_)
    if places.is_remainder is not None:
        assert dataset.order.begun is not None
        firsts, is_whole = dataset.order.begun.first_tokens(places), ~places.is_remainder
    positions = rows.row_starts[places.rows] + firsts
    pieces = rows.pieces(positions)
    is_whole &= positions + seq_len <= rows.piece_starts[pieces + 1]
    starts = lens.shard_starts[rows.piece_shards[pieces]] + positions - rows.piece_starts[pieces]
    costs = np.zeros_like(slots)
    whole = np.flatnonzero(is_whole)
    if len(whole):
        costs[whole] = lens.squares(starts[whole], np.full(len(whole), seq_len))
    for i in np.flatnonzero(~is_whole).tolist():
        found = np.array([*_stretches(dataset, places, i)], np.int64)
        costs[i] = lens.squares(lens.shard_starts[found[:, 0]] + found[:, 1], found[:, 2]).sum()
    return costs


def _stretches(dataset: BlendedDataset, places: Places, i: int) -> Iterator[tuple[int, int, int]]:
    """``(shard, offset, tokens)`` of each part of the inputs of a row."""
    rows, row, left = dataset.rows, int(places.rows[i]), dataset.config.seq_length
    for start, count in dataset.order.stretches(places, i):
        for piece, offset, part in pieces_of(rows, row, start, min(count, left)):
            yield int(rows.piece_shards[piece]), offset, part
            left -= part
