"""How far a run reads each row of documents: what it leaves unread, and the bytes it reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.history.phases import pasts_at
from blendtitan.history.run import phases_of, settings_of
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowReads:
    """The rows of all corpora at the end of a run. Arrays have the shape ``(R,)``."""

    seq_len: int
    corpora: IntArray
    """Number of each row's corpus."""

    tokens: IntArray
    draws: IntArray
    """Samples that the run takes from the row."""

    token_bytes: NDArray[np.float64]
    """Bytes of one token of the row, on average over its shards."""

    @property
    def num_short(self) -> int:
        """Rows shorter than a window, whose only window repeats tokens."""
        return int((self.tokens <= self.seq_len).sum())

    def unused(self, corpus: int) -> int:
        """Tokens of a corpus that no sample of the run predicts.

        A row whose first epoch is over counts as used: what its windows left over, fewer tokens
        than a window has, comes with the shift of later epochs.
        """
        own = self.corpora == corpus
        left = self.tokens[own] - 1 - self.draws[own] * self.seq_len
        return int(np.where(left >= self.seq_len, left, 0).sum())

    def bytes_read(self, corpus: int) -> int:
        """Bytes of a corpus's samples of ``seq_len + 1`` tokens, those read again counted again."""
        own = self.corpora == corpus
        samples = self.draws[own] * (self.seq_len + 1)
        return round(float((samples * self.token_bytes[own]).sum()))


def row_reads(dataset: Dataset, catalog: Catalog, num_samples: int) -> RowReads | None:
    """The rows of a dataset after so many samples; None in an order that has no rows."""
    if not isinstance(dataset, BlendedDataset):
        return None
    (phase,) = phases_of(dataset)
    settings = settings_of(dataset)
    pasts = pasts_at(phase, settings, num_samples)
    tokens = catalog.split_tokens(SPLITS.index(dataset.split))
    of_corpus = np.array(catalog.corpora)
    sizes = np.array([catalog.dtype(shard).itemsize for shard in range(len(tokens))])
    row_tokens: list[int] = []
    row_bytes: list[float] = []
    draws: list[int] = []
    for name, shards in phase.corpora.items():
        own = np.flatnonzero((of_corpus == name) & (tokens > 0))
        for row in shards.row_slices(blended=settings.blended):
            row_tokens.append(int(tokens[own[row]].sum()))
            row_bytes.append(float(np.average(sizes[own[row]], weights=tokens[own[row]])))
        draws += [past[-1][1] if past else 0 for past in pasts[name][1]]
    return RowReads(
        seq_len=phase.seq_len,
        corpora=dataset.order.row_corpora,
        tokens=np.array(row_tokens, np.int64),
        draws=np.array(draws, np.int64),
        token_bytes=np.array(row_bytes, np.float64),
    )
