"""Fixed samples: the data of a validation, the same each time and on any number of ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

from blendtitan.dataset.interface import Dataset
from blendtitan.order.blend import shares_of


@dataclass(frozen=True, slots=True)
class FixedSamples:
    """The first samples of the blend, or of one corpus; or every window, once."""

    corpus: str | None
    """None: the blend."""

    num_samples: int
    """Samples of all ranks together."""

    steps: int
    """Forward passes of every rank. The last one may have rows that do not count."""

    is_whole: bool
    """Whether these are all windows, once each."""


def fixed_samples(
    dataset: Dataset, *, limit: int | None, samples_per_step: int
) -> list[FixedSamples]:
    """The samples of a validation: those of the blend, then those of each corpus.

    Args:
        dataset: The split to validate on.
        limit: Most samples of each. None: every window, once.
        samples_per_step: Samples that one forward pass of all ranks together takes.

    Returns:
        If ``limit`` is below the number of windows, that many samples of the blend, or of the
        corpus, in its order. Otherwise all windows, each once. The whole blend is the whole of
        each corpus, and has no steps of its own: its loss is ``blend_loss`` of theirs.
    """
    corpora = {name: dataset.only(name).num_windows for name in dataset.corpora}
    found: list[FixedSamples] = []
    for corpus, num_windows in [(None, dataset.num_windows), *corpora.items()]:
        # The original's order has no windows, but a fixed number of samples.
        is_whole = (limit is None or limit >= num_windows) and not dataset.config.has_horizon
        num_samples = num_windows if limit is None else min(num_windows, limit)
        steps = -(-num_samples // samples_per_step)
        found.append(FixedSamples(corpus, num_samples, steps, is_whole))
    return found


def blend_loss(dataset: Dataset, losses: Mapping[str, float]) -> float:
    """The blend's loss from those of whole corpora: their mean, weighted by the shares.

    It estimates the loss of samples drawn by share, without their random error. Corpora without
    documents in the split have no loss and no weight.
    """
    shares = shares_of({name: dataset.segments[0].weights[name] for name in losses})
    return sum(shares[name] * loss for name, loss in losses.items())
