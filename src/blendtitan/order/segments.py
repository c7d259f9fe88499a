"""Planned changes of the shares of a run."""

from collections.abc import Mapping, Sequence

from blendtitan.errors import ConfigError
from blendtitan.order.blend import Segment, shares_of


def segments_of(weights: Mapping[str, float], changes: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments of a blend, from its weights and the changes during a run.

    Args:
        weights: Weight of each corpus before the first change.
        changes: Shares from a slot on, at growing slots. A corpus that is not named keeps its
            share; a share of 0 drops it. Shares need not sum to 1.

    Returns:
        Segments with the weights of all drawn corpora. The first begins at 0.

    Raises:
        ConfigError: A change names an unknown corpus, leaves none, or is out of order.
    """
    _check_changes(changes, list(weights))
    segments = [Segment(0, weights)]
    for change in changes:
        kept = shares_of(segments[-1].weights)
        drawn = {name: share for name, share in (kept | dict(change.weights)).items() if share > 0}
        segments = [s for s in segments if s.first_slot < change.first_slot]
        segments.append(Segment(change.first_slot, drawn))
    return tuple(segments)


def _check_changes(changes: Sequence[Segment], corpora: Sequence[str]) -> None:
    drawn = set(corpora)
    last_slot = -1
    for change in changes:
        where = f"the segment from slot {change.first_slot:,}"
        for name in change.weights.keys() - set(corpora):
            raise ConfigError(
                f"{where} names the corpus {name!r}, expected one of {', '.join(corpora)}"
            )
        if change.first_slot <= last_slot:
            raise ConfigError(f"{where} begins at or before the previous segment, expected later")
        named = {name for name, share in change.weights.items() if share > 0}
        drawn = (drawn | named) - (change.weights.keys() - named)
        if not drawn:
            raise ConfigError(f"{where} leaves no corpus with a share above 0")
        last_slot = change.first_slot
