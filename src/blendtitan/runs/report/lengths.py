"""Lengths of the documents of each corpus, of all of them or of an even sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.runs.contents import Contents
from blendtitan.shards.document_lengths import DocumentLens

IntArray = NDArray[np.int64]

MOST_DOCUMENTS = 200_000
"""Documents of a corpus that are looked at."""

_MOST_SHARDS = 16
_BLOCKS = 8

# Bins grow by a factor of the square root of two; the last one ends where int64 does.
_EDGES = np.unique([0, *np.round(2.0 ** np.arange(0, 62, 0.5)).astype(np.int64).tolist()])


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusLens:
    """Tokens per document of one corpus, in the split."""

    num_documents: int
    num_counted: int
    """Fewer than there are: the numbers below are of a sample."""

    min: int
    median: int
    p90: int
    max: int
    edges: IntArray
    """Where bins begin, and the end of the last. Shape ``(B + 1,)``."""

    fractions: NDArray[np.float64]
    """Fraction of the documents in each bin. Shape ``(B,)``."""


def corpus_lens(contents: Contents) -> dict[str, CorpusLens]:
    """Document lengths of every corpus that has documents in the split.

    Raises:
        ShardError: An ``.idx`` is missing or damaged.
    """
    shards: dict[str, list[int]] = {}
    for shard in contents.rows.piece_shards.tolist():
        shards.setdefault(contents.catalog.corpora[shard], []).append(shard)
    return {name: _lens(contents, own) for name, own in sorted(shards.items())}


def _lens(contents: Contents, shards: Sequence[int]) -> CorpusLens:
    split = contents.rows.split
    cuts = contents.catalog.document_cuts[:, split : split + 2]
    total = int(np.diff(cuts[shards]).sum())
    lens = DocumentLens()
    # All of them where they are few; else shards at even distances, and blocks of each likewise.
    is_sample = total > MOST_DOCUMENTS
    looked_at = _evenly(shards, _MOST_SHARDS) if is_sample else shards
    share = MOST_DOCUMENTS / int(np.diff(cuts[looked_at]).sum())
    for shard in looked_at:
        first, stop = cuts[shard].tolist()
        for begin, end in _blocks(first, stop, share) if is_sample else [(first, stop)]:
            lens.add(contents.document_lens(shard, begin, end))
    counts = lens.histogram(_EDGES)
    used = np.flatnonzero(counts)
    bins = slice(int(used[0]), int(used[-1]) + 1)
    return CorpusLens(
        num_documents=total,
        num_counted=lens.num_documents,
        min=lens.quantile(0),
        median=lens.quantile(0.5),
        p90=lens.quantile(0.9),
        max=lens.quantile(1),
        edges=_EDGES[bins.start : bins.stop + 1],
        fractions=counts[bins] / counts.sum(),
    )


def _evenly(shards: Sequence[int], most: int) -> list[int]:
    places = np.linspace(0, len(shards) - 1, min(most, len(shards))).round().astype(int)
    return [shards[place] for place in places]


def _blocks(first: int, stop: int, share: float) -> list[tuple[int, int]]:
    """Blocks of documents at even distances, together ``share`` of them; all if that is all."""
    count = max(1, round((stop - first) * min(1.0, share) / _BLOCKS))
    starts = np.linspace(first, max(first, stop - count), _BLOCKS).astype(int).tolist()
    if count * _BLOCKS >= stop - first:
        return [(first, stop)]
    return [(start, start + count) for start in starts]
