"""The error for a run whose data or settings are not those of its checkpoint."""

from collections.abc import Iterator, Sequence

from blendtitan.errors import ResumeError
from blendtitan.history.record import RunRecord

_NAMED = 4
"""Most corpora to name in one place."""


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
    shares = ["other shares"] if any(line.startswith("  segments.") for line in changed) else []
    kinds = "; ".join([*_kinds(saved, now), *shares])
    remedy = "Restore the values of the checkpoint, or start a new run in another folder."
    if not fixed:
        remedy = (
            "Restore the values of the checkpoint, or continue with the current ones, every corpus "
            "from its current position: --blendcorpus.on_change new_segment"
        )
    return ResumeError(
        f"the checkpoint was written with other data or settings{kinds and f' ({kinds})'}, so "
        f"training would not continue with the next samples:",
        *fixed,
        *changed,
        remedy,
    )


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
