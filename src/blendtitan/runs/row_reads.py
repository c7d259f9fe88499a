"""The tokens and bytes of each row of documents that a run reads."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.history.phases import OrderSettings, Phase, pasts_at
from blendtitan.history.run import phases_of, settings_of, skipped_of
from blendtitan.history.skips import skips_of
from blendtitan.storage.catalog import Catalog
from blendtitan.visible import counted

IntArray = NDArray[np.int64]


class RowReads(NamedTuple):
    """The tokens of each row that a run reads. Arrays have the shape ``(R,)``."""

    corpora: IntArray  # number of each row's corpus
    unused: IntArray  # tokens that no sample predicts; 0 after an epoch: shifts bring its rest
    num_bytes: NDArray[np.float64]  # of its samples; repeated reads count again


def row_reads(dataset: Dataset, catalog: Catalog, num_samples: int) -> RowReads | None:
    """The reads of the first ``num_samples`` slots.

    None in an order without rows, and in a run that was changed, whose rows have changed, too.
    """
    if not isinstance(dataset, BlendedDataset) or len(phases_of(dataset)) > 1:
        return None
    (phase,) = phases_of(dataset)
    settings, seq_len = settings_of(dataset), phase.seq_len
    row_draws = _row_draws(phase, settings, num_samples)
    for stretch in skips_of(skipped_of(dataset)).before(num_samples).stretches:
        first, stop = (_row_draws(phase, settings, slot) for slot in stretch)
        row_draws = row_draws - (stop - first)
    tokens = catalog.split_tokens(SPLITS.index(dataset.split))
    of_corpus, sizes = np.array(catalog.corpora), token_bytes(catalog)
    row_tokens: list[int] = []
    row_sizes: list[float] = []  # bytes of one token, on average over the row's shards
    for name, shards in phase.corpora.items():
        own = np.flatnonzero((of_corpus == name) & (tokens > 0))
        for row in shards.row_slices(blended=settings.blended):
            row_tokens.append(int(tokens[own[row]].sum()))
            row_sizes.append(float(np.average(sizes[own[row]], weights=tokens[own[row]])))
    held, draws = np.array(row_tokens, np.int64), row_draws
    left = held - 1 - draws * seq_len
    unused = np.where(left >= seq_len, left, 0)
    num_bytes = draws * (seq_len + 1) * np.array(row_sizes, np.float64)
    return RowReads(dataset.order.row_corpora, unused, num_bytes)


def _row_draws(phase: Phase, settings: OrderSettings, slot: int) -> IntArray:
    """Draws of each row in the first slots of a run's only phase. Shape ``(R,)``."""
    pasts = pasts_at(phase, settings, slot).values()
    return np.array([past[-1][1] if past else 0 for _, rows in pasts for past in rows], np.int64)


def token_bytes(catalog: Catalog) -> IntArray:
    """Bytes of one token of each shard. Shape ``(S,)``."""
    return np.array([catalog.dtype(shard).itemsize for shard in range(len(catalog.prefixes))])


def size_of(num_bytes: int) -> str:
    """A number of bytes with three digits and a unit."""
    size, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def removal_notes(catalog: Catalog) -> Iterator[str]:
    """A sentence if a catalog has removed documents."""
    if catalog.removed is not None and len(catalog.removed):
        removed = catalog.removed
        yield (
            f"{counted(len(removed), 'document')} of {removed.num_tokens:,} tokens are removed: "
            f"they are read as EOD, without a loss"
        )
