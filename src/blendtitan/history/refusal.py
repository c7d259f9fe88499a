"""The error for a run whose data or settings are not those of its checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blendtitan.errors import ResumeError
from blendtitan.history.record import RunRecord

_NAMED = 4
"""Most corpora to name in one place."""

_SPLIT = "split_fractions"

_OF_SHARDS = {_SPLIT, "append_eod", "eod_token_id"}
"""Settings that change what every shard holds for training."""


def refusal(
    saved: RunRecord, now: RunRecord, fixed: Sequence[str], changed: Sequence[str]
) -> ResumeError:
    """The error, which sums up the differences before it lists them.

    Args:
        saved: The record in the checkpoint.
        now: That of the present data and settings.
        fixed: Lines about facts that never change in a run.
        changed: Lines about facts that a new phase may change.
    """
    settings = _settings(saved.fixed_facts, now.fixed_facts)
    if len(settings) > 1:
        settings.pop("index", None)  # the original's, which follows from the others
    kinds = [f"another {name}" for name in settings.values()]
    if _OF_SHARDS.isdisjoint(settings):
        kinds += _kinds(saved, now)
    else:  # the shards' tokens differ because of it
        changed = [line for line in changed if not line.startswith("  corpora.")]
    lengths = {phase.seq_len for each in (saved, now) for phase in each.phases[-1:]}
    kinds += ["another seq_length"] * (len(lengths) > 1)
    kinds += ["other shares"] * any(line.startswith("  segments.") for line in changed)
    if _SPLIT in settings:
        shown = (str(each.fixed_facts[_SPLIT]).strip("[]") for each in (saved, now))
        line = "  split: checkpoint {}, now {}".format(*shown)
        fixed = [line, *(each for each in fixed if not each.startswith(f"  {_SPLIT}."))]
    remedy = "Restore the values of the checkpoint, or start a new run in another folder."
    if not fixed:
        remedy = (
            "Restore the values of the checkpoint, or continue with the current ones, every corpus "
            "from its current position: --blendcorpus.on_change new_segment"
        )
    names = "; ".join(kinds)
    return ResumeError(
        f"the checkpoint was written with other data or settings{f' ({names})' * bool(names)}, so "
        f"training would not continue with the next samples:",
        *fixed,
        *changed,
        remedy,
    )


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """The settings among the fixed facts that differ, and the names of their keys."""
    both = [key for key in before if key in after and not isinstance(before[key], dict)]
    different = [key for key in both if before[key] != after[key]]
    return {key: "split" if key == _SPLIT else key for key in different}


def _kinds(saved: RunRecord, now: RunRecord) -> Iterator[str]:
    if not (saved.phases and now.phases):  # the original's order has none
        return
    before, after = saved.phases[-1].corpora, now.phases[-1].corpora
    changes = {
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "with other shards": [
            name for name in after if name in before and before[name].ids != after[name].ids
        ],
    }
    for change, names in changes.items():
        if names:
            shown = ", ".join(map(repr, names[:_NAMED]))
            more = len(names) - _NAMED
            yield f"corpora {change}: {shown}" + (f" and {more:,} more" if more > 0 else "")
