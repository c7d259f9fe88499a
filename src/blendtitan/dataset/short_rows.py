"""Rows that are shorter than a sample, which repeats their tokens. Imported if there are any."""

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import ORIGINAL_ORDER, SPLITS, BlendConfig
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.rows import Rows
from blendtitan.errors import ConfigError
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


def short_rows(rows: Rows, config: BlendConfig) -> str:
    """How many rows have fewer tokens than a sample and its last label; empty if none has."""
    is_short = rows.num_tokens <= config.seq_length
    if not is_short.any():
        return ""
    what = "shards" if config.blend_sample_in_corpus else "corpora"
    return (
        f"{is_short.sum():,} of {len(is_short):,} {what} have fewer than training.seq_len + 1 = "
        f"{config.seq_length + 1:,} tokens"
    )


def warn_of_short_rows(rows: Rows, split: str, config: BlendConfig) -> None:
    """Log how many rows are short, if any is."""
    if short := short_rows(rows, config):
        logger.warning("%s: %s, so they repeat some", split, short)


def check_samples(dataset: Dataset, tokens: NDArray[np.int64], max_epochs: float) -> None:
    """Check that no corpus repeats its tokens too often within every sample.

    Args:
        dataset: The split that is trained on.
        tokens: Tokens that the run reads of each corpus. Shape ``(num_corpora,)``.
        max_epochs: Most epochs of a corpus.

    Raises:
        ConfigError: A sample is more than ``max_epochs`` times as long as the longest row of its
            corpus.
    """
    config, catalog, longest, what = dataset.config, dataset.catalog, dataset.corpus_tokens, "text"
    # A row is a shard; in the original's order, always.
    if config.blend_sample_in_corpus or config.order == ORIGINAL_ORDER:
        shard_tokens, what = catalog.split_tokens(SPLITS.index(dataset.split)), "longest shard"
        shards_of = catalog.shards_of_corpora()
        longest = np.array([shard_tokens[shards_of[name]].max() for name in dataset.corpora])
    is_read = tokens > dataset.tokens_before(dataset.first_slot)  # of other lengths, perhaps
    # With a limit below 1, a sample that does not repeat itself may be longer.
    repeats = longest * max(1, max_epochs) < config.seq_length
    short = [
        f"the {what} of {dataset.corpora[i]!r} has {longest[i]:,}"
        for i in np.flatnonzero(is_read & repeats)
    ]
    if short:
        raise ConfigError(
            f"training.seq_len is {config.seq_length:,}, but in the {dataset.split} split "
            f"{' and '.join(short)} tokens: each sample would repeat them more often than "
            f"max_epochs = {max_epochs:g} allows. Lower training.seq_len, "
            f"{'add text' if what == 'text' else 'merge shards or add text'}, or raise "
            f"blendcorpus.max_epochs (0: no limit)."
        )
