"""The progress of a run in each corpus, computed from the order and the consumed samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.order.blend import Segment, shares_of

# A corpus is always fewer than two samples above its share.
_ROUNDING_SAMPLES = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """The content of the first samples of a dataset, by corpus. Shapes ``(num_corpora,)``."""

    tokens: NDArray[np.int64]
    """Tokens read, including repetitions."""

    epochs: NDArray[np.float64]
    """Tokens read per token of the corpus."""

    shares: NDArray[np.float64]
    """Fraction of all samples that were of the corpus. 0 before the first one."""

    configured_shares: NDArray[np.float64]
    """The configured fraction, over all segments that were read."""


def progress(dataset: Dataset, consumed_samples: int) -> Progress:
    """The content of the slots of a dataset before ``consumed_samples``, by corpus.

    Skipped slots do not count.
    """
    draws = dataset.draws_before(consumed_samples)
    tokens = dataset.tokens_before(consumed_samples)
    return Progress(
        tokens=tokens,
        epochs=tokens / dataset.corpus_tokens,
        shares=draws / max(1, dataset.samples_before(consumed_samples)),
        configured_shares=configured_shares(
            dataset.corpora, dataset.segments_read, consumed_samples, dataset.samples_before
        ),
    )


def check_repetition(dataset: Dataset, num_samples: int, max_epochs: float) -> None:
    """Check that the first ``num_samples`` samples do not repeat a corpus too often.

    Args:
        dataset: The split that is trained on.
        num_samples: Slots of the whole run; skipped ones do not count as read.
        max_epochs: Most epochs of a corpus. 0: no limit.

    Raises:
        ConfigError: A corpus is read more often, each of its samples repeats its tokens more
            often, or ``max_epochs`` is below 0.
    """
    if not max_epochs >= 0:
        raise ConfigError(f"max_epochs is {max_epochs}, expected a number of at least 0")
    if max_epochs == 0:
        return
    seq_len = dataset.config.seq_length
    reached = progress(dataset, num_samples)
    if dataset.catalog.split_tokens(SPLITS.index(dataset.split)).min() < seq_len:
        from blendtitan.dataset.short_rows import check_samples

        check_samples(dataset, reached.tokens, max_epochs)
    surplus = reached.tokens - max_epochs * dataset.corpus_tokens
    often = [
        f"{dataset.corpora[i]!r} {reached.epochs[i]:.3g} times"
        for i in np.flatnonzero(surplus > _ROUNDING_SAMPLES * seq_len)
    ]
    if often:
        samples = dataset.samples_before(num_samples)
        raise ConfigError(
            f"{dataset.config.data_file_list}: in the {samples:,} samples of this run "
            f"({samples * seq_len:,} tokens), corpora would be read more often than "
            f"max_epochs = {max_epochs:g} allows: {', '.join(often)}. Give them less weight, train "
            f"for fewer steps, add text to them, or raise blendcorpus.max_epochs (0: no limit)."
        )


def configured_shares(
    corpora: Sequence[str],
    segments: Sequence[Segment],
    consumed_samples: int,
    samples_before: Callable[[int], int],
) -> NDArray[np.float64]:
    """Configured fraction of the first samples, from the weights of segments. ``(num_corpora,)``.

    It is the mean over the segments, weighted by the samples read in each.

    Args:
        corpora: Names of the corpora.
        segments: The segments of the run; the first begins at slot 0.
        consumed_samples: Number of slots, skipped ones included.
        samples_before: Number of slots before a slot that are not skipped.
    """
    number = {name: i for i, name in enumerate(corpora)}
    samples = max(1, samples_before(consumed_samples))
    firsts = [samples_before(segment.first_slot) for segment in segments]
    shares = np.zeros(len(number))
    for segment, first, stop in zip(segments, firsts, [*firsts[1:], samples], strict=True):
        part = max(0, min(stop, samples) - first) / samples
        own = shares_of(segment.weights)
        for name in own.keys() & number.keys():
            shares[number[name]] += part * own[name]
    return shares
