"""Exact quantiles and histograms of document lengths."""

import math

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import ShardIndex

IntArray = NDArray[np.int64]


class DocumentLengths:
    """The number of documents of each length, in tokens. Memory grows with distinct lengths."""

    def __init__(self) -> None:
        self._lens = np.zeros(0, np.int64)
        """Distinct lengths, in ascending order."""
        self._counts = np.zeros(0, np.int64)

    @property
    def num_documents(self) -> int:
        """Documents counted so far."""
        return int(self._counts.sum())

    def add(self, lens: IntArray) -> None:
        """Count documents by their lengths. Shape ``(num_documents,)``."""
        self._add(*np.unique(lens, return_counts=True))

    def update(self, other: "DocumentLengths") -> None:
        """Add the documents of another shard or corpus."""
        self._add(other._lens, other._counts)

    def quantile(self, fraction: float) -> int:
        """The smallest length that at least this fraction of the documents do not exceed.

        A fraction of 0 gives the shortest document, 1 the longest.
        """
        rank = max(1, math.ceil(fraction * self.num_documents))
        return int(self._lens[np.searchsorted(np.cumsum(self._counts), rank)])

    def histogram(self, edges: IntArray) -> IntArray:
        """Documents from each edge to below the next. Shape ``(len(edges) - 1,)``."""
        return np.histogram(self._lens, edges, weights=self._counts)[0].astype(np.int64)

    def _add(self, lens: IntArray, counts: IntArray) -> None:
        self._lens, places = np.unique(np.append(self._lens, lens), return_inverse=True)
        self._counts = np.bincount(places, np.append(self._counts, counts)).astype(np.int64)


def document_lens(index: ShardIndex) -> IntArray:
    """Tokens of each document of a shard."""
    return np.diff(index.document_starts(0, index.num_documents))
