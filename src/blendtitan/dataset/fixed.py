"""Fixed samples: what a validation reads, the same each time and on any number of ranks."""

from dataclasses import dataclass

from blendtitan.dataset.interface import Dataset


@dataclass(frozen=True, slots=True)
class FixedSamples:
    """The first samples of the blend, or of one corpus."""

    corpus: str | None
    """None: the blend."""

    num_samples: int
    """Samples of all ranks together."""

    steps: int
    """Forward passes of every rank. The last one may have rows that do not count."""


def fixed_samples(
    dataset: Dataset, *, limit: int | None, samples_per_step: int
) -> list[FixedSamples]:
    """What a validation reads: of the blend first, then of each corpus.

    Args:
        dataset: The split to validate on.
        limit: Most samples of each. None: one pass.
        samples_per_step: Samples that one forward pass of all ranks together takes.

    Returns:
        Never more samples than there are windows. Where weights are not in proportion to sizes,
        those of a small corpus, or of a small shard, may be read again in one pass.
    """
    corpora = {name: dataset.only(name).num_windows for name in dataset.corpora}
    found: list[FixedSamples] = []
    for corpus, num_windows in [(None, dataset.num_windows), *corpora.items()]:
        num_samples = num_windows if limit is None else min(num_windows, limit)
        found.append(FixedSamples(corpus, num_samples, -(-num_samples // samples_per_step)))
    return found
