"""Phases as JSON for the state of a run, and back. Saved states call them chapters.

A state comes from a file, so everything is checked before it is used.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.history.phases import CorpusShards, Phase
from blendtitan.history.remainder import Past
from blendtitan.order.blend import Segment

# Beyond this, a double can no longer represent every whole number.
_LARGEST = 1 << 53


def saved_segments(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Segments as ``phases_from`` reads them."""
    return [{"first_slot": s.first_slot, "weights": dict(s.weights)} for s in segments]


def saved_phases(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Phases as ``phases_from`` reads them."""
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
    """Read back the phases that ``saved_phases`` wrote.

    Args:
        saved: The phases in a state, from JSON.
        blended: Whether each shard has its own row.

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
