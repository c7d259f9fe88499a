"""The losses of a validation that reads sets beside the valid split of the blend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blendtitan.dataset.fixed import FixedSamples, blend_loss, fixed_samples
from blendtitan.dataset.interface import Dataset


@dataclass(frozen=True, slots=True)
class FixedData:
    """What a validation reads: the blend's valid split, or a validation set."""

    name: str | None
    """Name of the set. None: the blend."""

    dataset: Dataset
    samples: FixedSamples
    """Those of the blend, or of the set."""

    corpora: Sequence[FixedSamples]
    """Those of each corpus."""

    @classmethod
    def of(
        cls, name: str | None, dataset: Dataset, *, limit: int | None, samples_per_step: int
    ) -> "FixedData":
        """Fix the samples; the arguments are those of ``fixed_samples``."""
        samples, *corpora = fixed_samples(dataset, limit=limit, samples_per_step=samples_per_step)
        return cls(name, dataset, samples, corpora)

    @property
    def needed(self) -> list[FixedSamples]:
        """The samples to pass through the model: of a set, corpora only if it is whole."""
        drawn = [] if self.samples.is_whole else [self.samples]
        return [*drawn, *(self.corpora if self.name is None or not drawn else ())]


def losses_of(
    data: Sequence[FixedData], loss_of: Callable[[FixedData, FixedSamples], float]
) -> tuple[float | None, dict[str, float]]:
    """Losses of a validation.

    Args:
        data: The blend, if it has documents to validate on, and the sets.
        loss_of: Passes samples through the model and returns their mean loss.

    Returns:
        The blend's loss, or None, and those of its corpora and of the sets by name.
    """
    blend: float | None = None
    losses: dict[str, float] = {}
    for each in data:
        found = {fixed.corpus: loss_of(each, fixed) for fixed in each.needed}
        drawn = found.pop(None, None)
        corpora = {f"{corpus}": loss for corpus, loss in found.items()}
        loss = blend_loss(each.dataset, corpora) if drawn is None else drawn
        if each.name is None:
            blend, losses = loss, losses | corpora
        else:
            losses[each.name] = loss
    return blend, losses
