"""Differences between a checkpoint and a run, in data and settings, one line each.

Multiplying all weights by a constant changes nothing, so shares are compared and shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from blendtitan.history.phases import CorpusShards, as_recorded, same_proportions
from blendtitan.history.run import RunRecord
from blendtitan.order.blend import Segment, shares_of

_LISTED = 8
"""Largest number of shares to show of one blend."""


def differences(saved: Any, now: Any, path: str = "") -> list[str]:
    """One line for each place where two nested dicts or lists differ."""
    if isinstance(saved, list) and isinstance(now, list):
        saved, now = dict(enumerate(saved)), dict(enumerate(now))
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = [*saved, *(key for key in now if key not in saved)]
        prefix = f"{path}." if path else ""
        return [
            line
            for key in keys
            for line in differences(saved.get(key), now.get(key), f"{prefix}{key}")
        ]
    return [] if saved == now else [f"  {path}: checkpoint {saved!r}, now {now!r}"]


def phase_differences(saved: RunRecord, now: RunRecord, *, blended: bool) -> list[str]:
    """Differences that start a new phase.

    Args:
        saved: The record of a checkpoint.
        now: The record of the run as it is configured now.
        blended: Whether each shard of a corpus has its own row.
    """
    if not (saved.phases and now.phases):  # the original's order has none
        return differences(saved.phase_facts, now.phase_facts)
    before, after = saved.phases[-1], now.phases[-1]
    held, holds = saved.phase_facts["corpora"], now.phase_facts["corpora"]
    held = held if isinstance(held, dict) else {}
    of_corpora = (
        _corpus_differences(
            f"corpora.{name}",
            (held.get(name), holds.get(name)),
            (before.corpora.get(name), after.corpora.get(name)),
            blended=blended,
        )
        for name in dict.fromkeys([*held, *holds])
    )
    return [
        *differences(before.seq_len, after.seq_len, "seq_length"),
        *_segment_differences(before.segments, after.segments),
        *chain.from_iterable(of_corpora),
    ]


def _segment_differences(saved: Sequence[Segment], now: Sequence[Segment]) -> list[str]:
    now = as_recorded(now, saved)
    lines: list[str] = []
    for number in range(max(len(saved), len(now))):
        path = f"segments.{number}"
        a, b = (list(each[number : number + 1]) for each in (saved, now))
        if not (a and b):
            lines += differences(_shown(a), _shown(b), path)
            continue
        lines += differences(a[0].first_slot, b[0].first_slot, f"{path}.first_slot")
        lines += _share_differences(a[0].weights, b[0].weights, f"{path}.shares")
    return lines


def _shown(segment: Sequence[Segment]) -> object:
    """A segment that only one side has; None on the other side."""
    return [f"from slot {each.first_slot:,}" for each in segment] or None


def _share_differences(
    saved: Mapping[str, float], now: Mapping[str, float], path: str
) -> list[str]:
    if saved == now:
        return []
    a, b = ({k: float(f"{v:.12g}") for k, v in shares_of(each).items()} for each in (saved, now))
    return _first(differences(a, b, path))


def _corpus_differences(
    path: str,
    facts: tuple[Any, Any],
    shards: tuple[CorpusShards | None, CorpusShards | None],
    *,
    blended: bool,
) -> list[str]:
    found = differences(*facts, path)
    before, now = shards
    if found != differences(_digest(facts[0]), _digest(facts[1]), path) or not (before and now):
        return found  # more than the digest, or less
    # The digest is also that of the weights.
    contents = [(each.names, each.ids, each.tokens) for each in (before, now)]
    if contents[0] != contents[1] or before.weights == now.weights:
        return found
    if not blended or same_proportions(before.weights, now.weights):
        return []
    # Several shards may have one file name.
    labels = [f"{name} ({number})" for number, name in enumerate(now.names)]
    a, b = (dict(zip(labels, each.weights, strict=True)) for each in (before, now))
    return _share_differences(a, b, f"{path}.shares")


def _digest(facts: Any) -> dict[str, Any]:
    return {"shards_digest": facts.get("shards_digest")} if isinstance(facts, dict) else {}


def _first(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = len(lines) - _LISTED
    return lines if more <= 0 else [*lines[:_LISTED], f"  and {more:,} more shares"]
