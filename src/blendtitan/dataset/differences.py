"""How the data and settings of a checkpoint differ from those of a run, one line per difference.

Weights are proportions: multiplied by one number, all of them say the same. So shares are compared,
and shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from blendtitan.dataset.interface import Dataset
from blendtitan.order.chapters import Chapter, CorpusShards
from blendtitan.order.segments import Segment, as_recorded, same_proportions, shares_of

_LISTED = 8
"""Most shares that are shown of one blend."""


def differences(saved: Any, now: Any, path: str = "") -> list[str]:
    """One line for each place where two trees of dicts and lists differ."""
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


def chapter_differences(
    saved: Mapping[str, Any], chapters: Sequence[Chapter], dataset: Dataset
) -> list[str]:
    """What only another chapter may change, and is another than in a checkpoint.

    Args:
        saved: The ``chapter_facts`` of the checkpoint.
        chapters: Its chapters; none where the order knows none.
        dataset: What is read now.
    """
    if not (chapters and dataset.chapters):  # the original's order knows none
        return differences(saved, dataset.chapter_facts())
    before, now, facts = chapters[-1], dataset.chapters[-1], dataset.chapter_facts()
    held = saved["corpora"] if isinstance(saved["corpora"], dict) else {}
    names = [*held, *(name for name in facts["corpora"] if name not in held)]
    of_corpora = (
        _corpus_differences(
            f"corpora.{name}",
            (held.get(name), facts["corpora"].get(name)),
            (before.corpora.get(name), now.corpora.get(name)),
            blended=dataset.config.blend_sample_in_corpus,
        )
        for name in names
    )
    return [
        *differences(before.seq_len, now.seq_len, "seq_length"),
        *_segment_differences(before.segments, now.segments),
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
    """A segment of which the other side has none; None: it is this side that has none."""
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
