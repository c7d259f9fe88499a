"""Segments: stretches of the global order with constant shares.

A new segment counts its slots from 0 in a new tree, while the draws of each corpus go on from
where they were. A change of weights in the middle of a run is a new segment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.order.blend import BlendTrees


@dataclass(frozen=True, slots=True)
class Segment:
    """The shares that hold from one slot of the global order on."""

    first_slot: int
    """Slot at which the segment begins; the first segment begins at 0."""

    weights: Mapping[str, float]
    """Weight of each corpus, above 0. A corpus that is not named is not drawn."""


# A weight such as 0.3 / 3 differs in its last bits from what it is after another scaling.
_ROUNDING = 1e-9


def shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """Share of each corpus, summing to 1."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def same_proportions(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether some weights are others times one number, but for rounding."""
    if len(one) != len(other):
        return False
    scale = sum(other) / sum(one)
    return all(abs(a * scale - b) <= _ROUNDING * b for a, b in zip(one, other, strict=True))


def as_recorded(planned: Sequence[Segment], recorded: Sequence[Segment]) -> tuple[Segment, ...]:
    """Segments with the recorded weights where these have the same shares.

    Weights times a number give the same shares, but not the same rounding: single slots, far out in
    a run, might go to another corpus. A run that goes on therefore keeps the weights it began with.
    """
    known = {segment.first_slot: segment for segment in recorded}
    return tuple(
        known[segment.first_slot]
        if segment.first_slot in known and _same_shares(known[segment.first_slot], segment)
        else segment
        for segment in planned
    )


def _same_shares(one: Segment, other: Segment) -> bool:
    names = sorted(one.weights)
    return names == sorted(other.weights) and same_proportions(
        [one.weights[name] for name in names], [other.weights[name] for name in names]
    )


def segments_of(weights: Mapping[str, float], changes: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments of a blend, from its weights and what changes in the course of a run.

    Args:
        weights: Weight of each corpus before the first change.
        changes: Shares from a slot on, at growing slots. A corpus that is not named keeps its
            share; one with 0 is no longer drawn. Shares need not sum to 1.

    Returns:
        Segments with the weights of all corpora that are drawn. The first one begins at 0.
    """
    segments = [Segment(0, weights)]
    for change in changes:
        kept = shares_of(segments[-1].weights)
        drawn = {name: share for name, share in (kept | dict(change.weights)).items() if share > 0}
        segments = [s for s in segments if s.first_slot < change.first_slot]
        segments.append(Segment(change.first_slot, drawn))
    return tuple(segments)


def check_changes(changes: Sequence[Segment], corpora: Sequence[str]) -> None:
    """Check changes of shares against the corpora there are.

    Raises:
        ConfigError: One names an unknown corpus, leaves none, or is not after the one before.
    """
    drawn = set(corpora)
    last_slot = -1
    for change in changes:
        where = f"the segment from slot {change.first_slot:,}"
        for name in change.weights.keys() - set(corpora):
            raise ConfigError(
                f"{where} names the corpus {name!r}, expected one of {', '.join(corpora)}"
            )
        if change.first_slot <= last_slot:
            raise ConfigError(f"{where} begins at or before the one before it, expected after it")
        named = {name for name, share in change.weights.items() if share > 0}
        drawn = (drawn | named) - (change.weights.keys() - named)
        if not drawn:
            raise ConfigError(f"{where} leaves no corpus with a share above 0")
        last_slot = change.first_slot


def segments_from(segments: Sequence[Segment], slot: int) -> tuple[Segment, ...]:
    """The segments in force from ``slot`` on, with their slots counted from there."""
    begun = [segment for segment in segments if segment.first_slot <= slot][-1]
    later = [s for s in segments if s.first_slot > slot]
    return (
        Segment(0, begun.weights),
        *(Segment(s.first_slot - slot, s.weights) for s in later),
    )


@dataclass(frozen=True, slots=True)
class BlendOrder:
    """Which corpus has a slot, and which of its draws that is, over all segments."""

    corpora: tuple[str, ...]
    """Names of all corpora of all segments, sorted; a corpus's number is its place here."""

    first_slots: NDArray[np.int64]
    """First slot of each segment. Shape ``(num_segments,)``."""

    trees: BlendTrees
    """One tree for each segment."""

    corpus_of_leaf: NDArray[np.int64]
    """Number of the corpus of each leaf. Shape ``(num_leaves,)``."""

    draws_before_leaf: NDArray[np.int64]
    """Draws of the leaf's corpus in all earlier segments. Shape ``(num_leaves,)``."""

    @classmethod
    def build(cls, segments: Sequence[Segment], corpora: Iterable[str] = ()) -> Self:
        """Order of ``segments``, which begin at 0 and at growing slots after it.

        ``corpora`` are numbered as well where no segment names them.
        """
        assert segments
        assert segments[0].first_slot == 0
        named = {name for segment in segments for name in segment.weights}
        corpora = tuple(sorted(named.union(corpora)))
        names = [sorted(segment.weights) for segment in segments]
        trees = BlendTrees.build(
            [[s.weights[name] for name in n] for s, n in zip(segments, names, strict=True)]
        )
        number = {name: i for i, name in enumerate(corpora)}
        corpus_of_leaf = np.array([number[name] for n in names for name in n], np.int64)
        first_slots = np.array([segment.first_slot for segment in segments], np.int64)
        assert np.all(np.diff(first_slots) > 0)
        draws = np.zeros(len(corpora), np.int64)
        draws_before_leaf = np.zeros(len(corpus_of_leaf), np.int64)
        leaf = 0
        for i, n in enumerate(names):
            own = slice(leaf, leaf + len(n))
            draws_before_leaf[own] = draws[corpus_of_leaf[own]]
            if i + 1 < len(segments):
                slots = int(first_slots[i + 1] - first_slots[i])
                draws[corpus_of_leaf[own]] += trees.draws_before(i, slots)[own]
            leaf = own.stop
        return cls(corpora, first_slots, trees, corpus_of_leaf, draws_before_leaf)

    def draws(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(corpus, draw)`` of each slot of the global order, each of the shape of ``slots``."""
        segment = np.searchsorted(self.first_slots, slots, side="right") - 1
        leaf, draw = self.trees.leaves(segment, slots - self.first_slots[segment])
        return self.corpus_of_leaf[leaf], draw + self.draws_before_leaf[leaf]

    def draws_before(self, slot: int) -> NDArray[np.int64]:
        """How many of the first ``slot`` slots each corpus has. Shape ``(num_corpora,)``."""
        draws = np.zeros(len(self.corpora), np.int64)
        stops = [*self.first_slots[1:].tolist(), slot]
        for segment, (first, stop) in enumerate(zip(self.first_slots.tolist(), stops, strict=True)):
            slots = min(slot, stop) - first
            if slots > 0:
                np.add.at(draws, self.corpus_of_leaf, self.trees.draws_before(segment, slots))
        return draws
