"""Document lengths, counted in bounded memory with exact quantiles."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import ShardIndex

IntArray = NDArray[np.int64]

# Lengths below this have a counter each: one megabyte. Longer documents are few, because each of
# them is a hundred thousand tokens of the corpus, and are counted by length.
_COUNTED = 1 << 17

_BLOCK_DOCUMENTS = 1 << 18


class DocumentLengths:
    """How many documents have which length, in tokens."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)
        self._long: Counter[int] = Counter()

    @classmethod
    def of_shard(cls, index: ShardIndex) -> Self:
        """Count the documents of a shard; raises CorruptShardError for an impossible entry."""
        lengths = cls()
        for block in document_lens(index):
            lengths.add(block)
        return lengths

    @property
    def num_documents(self) -> int:
        """Documents counted so far."""
        return int(self._counts.sum()) + self._long.total()

    def add(self, lens: IntArray) -> None:
        """Count documents by their lengths. Shape ``(num_documents,)``."""
        is_short = lens < _COUNTED
        self._add_counts(np.bincount(lens[is_short]))
        self._long.update(lens[~is_short].tolist())

    def update(self, other: "DocumentLengths") -> None:
        """Add the documents of another shard or corpus."""
        self._add_counts(other._counts)
        self._long.update(other._long)

    def quantile(self, fraction: float) -> int:
        """The shortest length that at least this fraction of the documents do not exceed.

        A fraction of 0 gives the shortest document, 1 the longest.
        """
        assert self.num_documents > 0
        rank = max(1, math.ceil(fraction * self.num_documents))
        up_to = np.cumsum(self._counts)
        if len(up_to) and rank <= up_to[-1]:
            return int(np.searchsorted(up_to, rank))
        rank -= int(self._counts.sum())
        longest = sorted(self._long.elements())
        return longest[rank - 1]

    def histogram(self, edges: IntArray) -> IntArray:
        """Documents from each edge to below the next. Shape ``(len(edges) - 1,)``."""
        lens = np.flatnonzero(self._counts)
        counts, _ = np.histogram(lens, edges, weights=self._counts[lens])
        long = np.array([*self._long.elements()], np.int64)
        return counts.astype(np.int64) + np.histogram(long, edges)[0]

    def _add_counts(self, counts: IntArray) -> None:
        if len(counts) > len(self._counts):
            self._counts = np.pad(self._counts, (0, len(counts) - len(self._counts)))
        self._counts[: len(counts)] += counts


def document_lens(index: ShardIndex) -> Iterator[IntArray]:
    """Tokens of each document of a shard, in blocks."""
    for first in range(0, index.num_documents, _BLOCK_DOCUMENTS):
        last = min(first + _BLOCK_DOCUMENTS, index.num_documents)
        yield np.diff(index.document_starts(first, last))


def document_ends(index: ShardIndex) -> Iterator[IntArray]:
    """Where each document of a shard ends in its ``.bin``, in tokens, in blocks."""
    end = 0
    for lens in document_lens(index):
        ends = end + np.cumsum(lens)
        end = int(ends[-1])
        yield ends
