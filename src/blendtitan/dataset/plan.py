"""What a slot of the global order leads to: a sample, and where it lies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample and where it came from."""

    input_ids: IntArray
    """Shape ``(L,)``."""

    labels: IntArray
    """The token after each input; -100 where the loss is masked. Shape ``(L,)``."""

    corpus: str
    """Name of the corpus."""

    shard: str
    """Path of the shard, without suffix, that holds the first token."""

    draw: int
    """Running number among the samples of the corpus."""

    epoch: int
    """Which pass over the row of documents that the window is cut from."""

    window: int
    """Number of the window in that row."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the samples of some slots lie. Arrays have the shape ``(n,)``."""

    slots: IntArray
    corpora: IntArray
    draws: IntArray
    """Draw of the corpus, counted from the first slot of the last chapter."""
    rows: IntArray
    epochs: IntArray
    windows: IntArray
    starts: IntArray
    """Offset of the window in its row, or in what its epoch had left, in tokens."""
    of_unread: NDArray[np.bool_]
    """Whether the window is cut from what its epoch had left; see ``order/unread.py``."""
    shards: IntArray
    """Shard that holds the first token."""
    at_bytes: IntArray
    """Where the whole window lies in that shard's ``.bin``; -1 if it is not in one stretch."""
    sample_ids: NDArray[np.uint64]
    """A number that tells samples apart, whatever other corpora there are."""
