"""Rows that are shorter than a sample, which repeats their tokens. Imported if there are any."""

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS, BlendConfig
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.rows import Rows
from blendtitan.errors import ConfigError
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


def warn_of_short_rows(rows: Rows, split: str, config: BlendConfig) -> None:
    """Log how many rows have fewer tokens than a sample and its last label."""
    is_short = rows.num_tokens <= config.seq_length
    logger.warning(
        "%s: %d of %d %s have fewer than training.seq_len + 1 = %d tokens, so they repeat some",
        *(split, is_short.sum(), len(is_short)),
        *("shards" if config.blend_sample_in_corpus else "corpora", config.seq_length + 1),
    )


def check_samples(dataset: Dataset, is_read: NDArray[np.bool_], max_epochs: float) -> None:
    """Check that no corpus repeats its tokens too often within every sample.

    Args:
        dataset: The split that is trained on.
        is_read: Whether the run reads each corpus. Shape ``(num_corpora,)``.
        max_epochs: Most epochs of a corpus.

    Raises:
        ConfigError: A sample is longer than so many times the longest row of its corpus.
    """
    seq_len, longest, what = dataset.config.seq_length, dataset.corpus_tokens, "text"
    if dataset.config.blend_sample_in_corpus:  # a row is a shard
        shards, what = dataset.catalog.split_tokens(SPLITS.index(dataset.split)), "longest shard"
        of_corpus = np.array(dataset.catalog.corpora)
        longest = np.array([shards[of_corpus == name].max() for name in dataset.corpora])
    short = [
        f"the {what} of {dataset.corpora[i]!r} has {longest[i]:,}"
        for i in np.flatnonzero(is_read & (longest * max_epochs < seq_len))
    ]
    if short:
        raise ConfigError(
            f"training.seq_len is {seq_len:,}, but {' and '.join(short)} tokens: each sample would "
            f"repeat them more often than max_epochs = {max_epochs:g} allows. Lower "
            f"training.seq_len, {'add text' if what == 'text' else 'make longer shards'}, or raise "
            f"blendcorpus.max_epochs (0: no limit)."
        )
