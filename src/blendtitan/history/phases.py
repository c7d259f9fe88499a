"""Phases: stretches of a run over which data and sequence length stay the same.

A run begins with a phase. When it is resumed with other data, weights or another sequence length,
and is allowed to, the next phase begins there. A phase holds everything that its order depends on,
so any of its slots can be explained later from the state alone. Saved states call them chapters;
they come from a file, so everything in them is checked before it is used.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.history.remainder import BegunRows, Past, read_further
from blendtitan.order.blend import BlendOrder, Segment
from blendtitan.order.course import NO_SKIPS, Skips
from blendtitan.order.slots import CorpusRows, SlotOrder

# A weight such as 0.3 / 3 has other last bits after another scaling.
_ROUNDING = 1e-9


def same_proportions(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether weights are multiples of others, up to rounding."""
    if len(one) != len(other):
        return False
    scale = sum(other) / sum(one)
    return all(abs(a * scale - b) <= _ROUNDING * b for a, b in zip(one, other, strict=True))


def as_recorded(planned: Sequence[Segment], recorded: Sequence[Segment]) -> tuple[Segment, ...]:
    """The planned segments, with the recorded weights where the shares are the same.

    Multiplied weights give the same shares, but not the same rounding: a few slots far into a run
    might go to another corpus. A resumed run therefore keeps the weights it began with.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderSettings:
    """Settings that never change during a run."""

    seed: int
    split: str
    shuffled: bool
    """Whether the windows of an epoch are permuted."""
    blended: bool
    """Whether each shard of a corpus is a row of its own. Otherwise its shards form one row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusShards:
    """The shards of one corpus that have documents in the split, in reading order."""

    names: tuple[str, ...]
    """File names without suffix."""
    ids: tuple[str, ...]
    """Fingerprints: a digest of everything that is known of each shard."""
    tokens: tuple[int, ...]
    """Tokens in the split."""
    weights: tuple[float, ...]
    places: tuple[int, ...]
    """Numbers that select the order within each shard; each has one meaning in a run."""
    draws: int = 0
    """Draws of the corpus before the phase, since the present blend of its shards began."""
    pasts: tuple[Past, ...]
    """The progress of each row when the present blend of its shards began."""

    def row_slices(self, *, blended: bool) -> list["slice[int, int, None]"]:
        """The shards of each row."""
        number = len(self.names)
        return [slice(i, i + 1) for i in range(number)] if blended else [slice(0, number)]

    def rows(self, *, blended: bool) -> CorpusRows:
        """The rows, for an order."""
        if blended:
            return CorpusRows(self.tokens, self.weights, self.places)
        return CorpusRows([sum(self.tokens)], [1.0], [None])


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of the global order, up to the first slot of the next phase."""

    first_slot: int
    seq_len: int
    segments: tuple[Segment, ...]
    """Segments of the whole run, as planned then; their slots count from the run's first."""
    corpora: Mapping[str, CorpusShards]
    """Shards of each corpus, sorted by name."""

    def blend(self) -> BlendOrder:
        """The corpus of each slot, counted from the phase's first."""
        return BlendOrder.build(segments_from(self.segments, self.first_slot), self.corpora)

    def order(self, settings: OrderSettings) -> SlotOrder:
        """The order of the phase."""
        corpora = {name: each.rows(blended=settings.blended) for name, each in self.corpora.items()}
        order = SlotOrder.build(
            segments_from(self.segments, self.first_slot),
            corpora,
            seed=settings.seed,
            split=settings.split,
            seq_len=self.seq_len,
            shuffled=settings.shuffled,
        )
        pasts = [past for shards in self.corpora.values() for past in shards.pasts]
        draws = [shards.draws for shards in self.corpora.values()]
        begun = None
        if any(pasts) or any(draws):
            tokens = [count for rows in corpora.values() for count in rows.tokens]
            begun = BegunRows.build(order, tokens, pasts, draws)
        return replace(order, first_slot=self.first_slot, begun=begun)


def pasts_at(
    phase: Phase, settings: OrderSettings, slot: int
) -> dict[str, tuple[int, tuple[Past, ...]]]:
    """Draws of each corpus since its tree began, and the progress of its rows at ``slot``."""
    order = phase.order(settings)
    draws = order.blend.draws_before(slot - phase.first_slot)
    found: dict[str, tuple[int, tuple[Past, ...]]] = {}
    for number, (name, shards) in enumerate(phase.corpora.items()):
        total = shards.draws + int(draws[number])
        row_draws = order.trees.draws_before(number, total)[order.row_corpora == number].tolist()
        pasts = zip(shards.pasts, row_draws, strict=True)
        found[name] = total, tuple(read_further(past, phase.seq_len, n) for past, n in pasts)
    return found


def segments_from(segments: Sequence[Segment], slot: int) -> tuple[Segment, ...]:
    """The segments in force from ``slot`` on, with their slots counted from there."""
    begun = [segment for segment in segments if segment.first_slot <= slot][-1]
    later = [s for s in segments if s.first_slot > slot]
    return (
        Segment(0, begun.weights),
        *(Segment(s.first_slot - slot, s.weights) for s in later),
    )


def occurrences(keys: Iterable[Hashable]) -> list[int]:
    """The number of equal keys before each key.

    Only this number distinguishes shards of one name and size in different folders.
    """
    seen: Counter[Hashable] = Counter()
    numbers: list[int] = []
    for key in keys:
        numbers.append(seen[key])
        seen[key] += 1
    return numbers


def draws_before(
    phases: Sequence[Phase], slot: int, skips: Skips = NO_SKIPS
) -> list[dict[str, int]]:
    """Draws of each corpus in the first ``slot`` slots that are not skipped, phase by phase."""
    stops = [*(phase.first_slot for phase in phases[1:]), slot]
    found: list[dict[str, int]] = []
    for phase, stop in zip(phases, stops, strict=True):
        blend, first, stop = phase.blend(), phase.first_slot, min(stop, slot)
        draws = blend.draws_before(max(0, stop - first))
        for skipped in skips.before(stop).stretches:
            begin, end = (blend.draws_before(max(0, each - first)) for each in skipped)
            draws = draws - (end - begin)
        found.append(dict(zip(blend.corpora, draws.tolist(), strict=True)))
    return found


def segments_read(phases: Sequence[Phase]) -> list[Segment]:
    """The segments of a whole run as read and as planned, slots counted from the run's first."""
    stops = [*(phase.first_slot for phase in phases[1:]), None]
    return [
        Segment(segment.first_slot + phase.first_slot, segment.weights)
        for phase, stop in zip(phases, stops, strict=True)
        for segment in segments_from(phase.segments, phase.first_slot)
        if stop is None or segment.first_slot + phase.first_slot < stop
    ]


# Beyond this, a double can no longer represent every whole number.
_LARGEST = 1 << 53


def saved_segments(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Segments as JSON, for ``phases_from``."""
    return [{"first_slot": s.first_slot, "weights": dict(s.weights)} for s in segments]


def saved_phases(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Phases as JSON, for ``phases_from``."""
    return [
        {
            "first_slot": phase.first_slot,
            "seq_length": phase.seq_len,
            "segments": saved_segments(phase.segments),
            "corpora": {name: _saved_shards(shards) for name, shards in phase.corpora.items()},
        }
        for phase in phases
    ]


def _saved_shards(shards: CorpusShards) -> dict[str, Any]:
    return {
        "shards": shards.names,
        "ids": shards.ids,
        "tokens": shards.tokens,
        "weights": shards.weights,
        "places": shards.places,
        "draws": shards.draws,
        "read": shards.pasts,
    }


def phases_from(saved: Any, *, blended: bool) -> tuple[Phase, ...]:
    """The phases that ``saved_phases`` returned, read back from JSON.

    Raises:
        ConfigError: They are damaged.
    """
    try:
        phases = tuple(_phase(each, blended=blended) for each in _list(saved))
        firsts = [phase.first_slot for phase in phases]
        _check(bool(phases) and firsts[0] == 0 and firsts == sorted(set(firsts)), firsts)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"damaged phases ({type(error).__name__}: {error})") from error
    return phases


def _phase(saved: Mapping[str, Any], *, blended: bool) -> Phase:
    segments = tuple(
        Segment(
            _count(each["first_slot"]),
            {name: _weight(weight) for name, weight in _mapping(each["weights"]).items()},
        )
        for each in _list(saved["segments"])
    )
    firsts = [segment.first_slot for segment in segments]
    _check(bool(firsts) and firsts[0] == 0 and firsts == sorted(set(firsts)), firsts)
    corpora = {
        name: _shards(_mapping(shards), blended=blended)
        for name, shards in sorted(_mapping(saved["corpora"]).items())
    }
    named = {name for segment in segments for name in segment.weights}
    _check(all(segment.weights for segment in segments) and named <= corpora.keys(), named)
    for segment in segments:
        _check(math.isfinite(sum(segment.weights.values())), segment.weights)
    return Phase(
        first_slot=_count(saved["first_slot"]),
        seq_len=_count(saved["seq_length"], least=1),
        segments=segments,
        corpora=corpora,
    )


def _shards(saved: Mapping[str, Any], *, blended: bool) -> CorpusShards:
    shards = CorpusShards(
        names=tuple(_text(name) for name in _list(saved["shards"])),
        ids=tuple(_text(each) for each in _list(saved["ids"])),
        tokens=tuple(_count(each, least=1) for each in _list(saved["tokens"])),
        weights=tuple(_weight(each) for each in _list(saved["weights"])),
        places=tuple(_count(each) for each in _list(saved["places"])),
        draws=_count(saved["draws"]),
        pasts=tuple(_past(each) for each in _list(saved["read"])),
    )
    num_rows = len(shards.names) if blended else 1
    lens = [len(shards.ids), len(shards.tokens), len(shards.weights), len(shards.places)]
    _check(set(lens) == {len(shards.names)} and len(shards.pasts) == num_rows and num_rows, lens)
    _check(math.isfinite(sum(shards.weights)) and sum(shards.tokens) < _LARGEST, shards.weights)
    return shards


def _past(saved: Any) -> Past:
    past = tuple((_count(length, least=1), _count(draws)) for length, draws in _list(saved))
    _check(all(draws > 0 for _, draws in past), past)
    return past


def _list(value: Any) -> Sequence[Any]:
    _check(isinstance(value, list | tuple), value)
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    _check(isinstance(value, dict), value)
    return value


def _text(value: Any) -> str:
    _check(isinstance(value, str), value)
    return value


def _count(value: Any, least: int = 0) -> int:
    _check(type(value) is int and least <= value < _LARGEST, value)
    return value


def _weight(value: Any) -> float:
    _check(isinstance(value, int | float) and math.isfinite(value) and value > 0, value)
    return float(value)


def _check(is_right: object, found: object) -> None:
    if not is_right:
        raise ValueError(f"found {found!r}")
