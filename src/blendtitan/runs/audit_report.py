"""The audit of a run as a table and as JSON."""

from collections.abc import Sequence
from typing import Any

from blendtitan.errors import ResumeError
from blendtitan.history.phases import segments_read
from blendtitan.runs.audit import Audited, Parting
from blendtitan.tables import Table, number_table


def audit_table(run: Sequence[Audited]) -> Table:
    """One line for each checkpoint."""
    table = number_table("step", "consumed samples", "chapter", "segments", "digest", "")
    for one in run:
        if one.state is None:
            facts = ["", "", "", ""]
        else:
            facts = [
                f"{one.state.consumed_samples:,}",
                f"{len(one.state.phases) or 1}",
                f"{len(segments_read(one.state.phases)) or 1}",
                one.state.digest[:12],
            ]
        table.add_row(f"{one.stored.step:,}", *facts, _verdict(one))
    return table


def _verdict(one: Audited) -> str:
    proved = "proved"
    if one.state is not None and not one.state.phases:
        proved = "proved, but for the samples: the original's order is in the data"
    return "; ".join(one.problems) or one.stored.note or proved


def audit_json(run: Sequence[Audited], parting: Parting | None) -> dict[str, Any]:
    """The same for programs; with ``parting``, also where two runs part."""
    checkpoints = [
        {
            "step": one.stored.step,
            "path": str(one.stored.path),
            "consumed_samples": one.state.consumed_samples if one.state else None,
            "chapters": [chapter.first_slot for chapter in one.state.phases] if one.state else [],
            "digest": one.state.digest if one.state else None,
            "note": one.stored.note,
            "problems": one.problems,
        }
        for one in run
    ]
    compared = (
        {}
        if parting is None
        else {
            "parts_at_slot": parting.slot,
            "reasons": list(parting.reasons),
        }
    )
    return {"checkpoints": checkpoints, **compared}


def check_proved(run: Sequence[Audited]) -> None:
    """Check that nothing is wrong with any checkpoint.

    Raises:
        ResumeError: Something is, or no checkpoint holds a state.
    """
    wrong = [one for one in run if one.problems]
    if wrong:
        raise ResumeError(
            f"{len(wrong)} of {len(run)} checkpoints are not proved: "
            + "; ".join(f"step {one.stored.step:,} {_verdict(one)}" for one in wrong)
        )
    if all(one.state is None for one in run):
        raise ResumeError("no checkpoint holds a state of the data loader: nothing is proved")
