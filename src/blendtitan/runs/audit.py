"""Proof, from the states in a run's checkpoints, that each continues the one before.

The order is arithmetic and the states hold everything that it depends on, so the audit reads only
the states: no data, no weights. It proves for two neighbouring checkpoints:

- seed, split and flags are the same;
- the later one contains the history of the earlier one: its phases, its segments up to there, and
  its batch schedule;
- the last 4,096 samples before the earlier one, in the order of the later one, have the earlier
  one's digest;
- each phase that began in between continues every row at its position;
- both have consumed as many samples as their steps and global batch sizes say, so every slot
  before them was trained on once or is among the skipped slots;
- both skipped the same slots before the earlier one, and removed the same documents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from blendtitan.batch_schedule import (
    BatchSchedule,
    consumed_at,
    samples_of,
    schedule_of_state,
    size_changes,
)
from blendtitan.errors import ResumeError
from blendtitan.history.phases import CorpusShards, Phase, segments_read
from blendtitan.history.removals import removals_before, saved_removals
from blendtitan.history.run import with_next_phase
from blendtitan.history.skips import saved_skips
from blendtitan.order.blend import Segment, shares_of
from blendtitan.runs.checkpoints import StoredState, stored_states
from blendtitan.state import SavedState, digest_of, digest_slots, order_settings, parse_state
from blendtitan.tables import Table


@dataclass(slots=True)
class Audited:
    """One checkpoint and its problems."""

    stored: StoredState
    state: SavedState | None = None
    schedule: BatchSchedule = ()
    problems: list[str] = field(default_factory=list)

    def verdict(self) -> str:
        """The verdict in words: proved, or the problems."""
        proved = "proved"
        if self.state is not None and not self.state.phases:
            proved = "proved, except for the samples, which need the data in the original's order"
        return "; ".join(self.problems) or self.stored.note or proved

    def json(self) -> dict[str, Any]:
        """The checkpoint as JSON."""
        state = self.state
        return {
            "step": self.stored.step,
            "path": str(self.stored.path),
            "consumed_samples": state.consumed_samples if state else None,
            "chapters": [phase.first_slot for phase in state.phases] if state else [],
            "digest": state.digest if state else None,
            **({"skipped": saved_skips(state.skipped)} if state and state.skipped else {}),
            **({"removed": saved_removals(state.removals)} if state and state.removals else {}),
            "note": self.stored.note,
            "problems": self.problems,
        }


def audit_run(run_folder: Path) -> list[Audited]:
    """Every checkpoint of a run, each checked against the previous readable one.

    Raises:
        ConfigError: There is no checkpoint.
    """
    found = [_audited(stored) for stored in stored_states(run_folder)]
    known = [(one, one.state) for one in found if one.state is not None]
    for one, state in known:
        if one.schedule:
            one.problems += _count_problems(one, state)
    for (before, earlier), (after, later) in pairwise(known):
        after.problems += continuation_problems(earlier, later)
        step = before.stored.step
        if size_changes(after.schedule, step) != size_changes(before.schedule, step):
            after.problems.append(f"has another batch schedule than step {step:,}")
    return found


def _count_problems(one: Audited, state: SavedState) -> Iterator[str]:
    """Reasons why slots were not trained on once: the schedule's samples, and skipped slots."""
    step, consumed = one.stored.step, state.consumed_samples
    expected = consumed_at(one.schedule, step)
    trained = state.skips.kept_before(consumed)
    if expected != consumed:
        yield f"consumed {consumed:,} samples, expected {expected:,} at step {step:,}"
    elif state.skipped and samples_of(one.schedule, step) != trained:
        yield (
            f"trained on {samples_of(one.schedule, step):,} samples in {step:,} steps, but "
            f"{trained:,} slots before slot {consumed:,} are not skipped"
        )


def _audited(stored: StoredState) -> Audited:
    if stored.state_dict is None:
        return Audited(stored, problems=[stored.note] if stored.is_damaged else [])
    try:
        state, schedule = parse_state(stored.state_dict), schedule_of_state(stored.state_dict)
    except ResumeError as error:
        return Audited(stored, problems=[str(error)])
    return Audited(stored, state, schedule)


def continuation_problems(before: SavedState, after: SavedState) -> list[str]:
    """The reasons why ``after`` does not continue ``before``; empty if it does."""
    names = [
        name for name, fact in before.fixed_facts.items() if after.fixed_facts.get(name) != fact
    ]
    if before.fixed_facts != after.fixed_facts:
        return [f"has another {', '.join(names)} than the previous checkpoint"]
    consumed = before.consumed_samples
    if after.consumed_samples < consumed:
        return [
            f"consumed {after.consumed_samples:,} samples, the previous checkpoint {consumed:,}"
        ]
    problems: list[str] = []
    if not _contains(after.phases, before.phases, consumed):
        problems.append("has another history than the previous checkpoint")
    elif _digest_at(after, before) != before.digest:
        problems.append(f"has other samples before slot {consumed:,} than the previous checkpoint")
    if before.skips.before(consumed).stretches != after.skips.before(consumed).stretches:
        problems.append(f"skips other slots before slot {consumed:,} than the previous checkpoint")
    removed = (removals_before(state.removals, consumed) for state in (before, after))
    if len({*removed}) > 1:
        problems.append(
            f"removed other documents before slot {consumed:,} than the previous checkpoint"
        )
    return problems + list(_phase_problems(after))


def _contains(later: Sequence[Phase], earlier: Sequence[Phase], slot: int) -> bool:
    """Whether two histories agree on the first ``slot`` slots."""
    one, other = (
        [
            (replace(phase, segments=()), _segments_until([phase], slot))
            for phase in history
            if phase.first_slot < slot
        ]
        for history in (later, earlier)
    )
    return one == other


def _segments_until(history: Sequence[Phase], slot: int) -> list[Segment]:
    return [segment for segment in segments_read(history) if segment.first_slot < slot]


def _digest_at(later: SavedState, earlier: SavedState) -> str:
    """The digest of the earlier state, in the order of the later one."""
    if not earlier.phases:  # the original's order is in the data only
        return earlier.digest
    first_slot = earlier.phases[-1].first_slot
    slots = digest_slots(first_slot, earlier.consumed_samples, later.skips)
    if len(slots) == 0:
        return earlier.digest
    phase = next(phase for phase in later.phases if phase.first_slot == first_slot)
    order = phase.order(order_settings(later.fixed_facts))
    return digest_of(order.places(slots).sample_ids)


def _phase_problems(state: SavedState) -> Iterator[str]:
    """A line for each corpus of a phase that does not continue the phases before it."""
    settings = order_settings(state.fixed_facts)
    for number in range(1, len(state.phases)):
        before, phase = state.phases[:number], state.phases[number]
        expected = with_next_phase(
            before,
            settings,
            slot=phase.first_slot,
            seq_len=phase.seq_len,
            segments=phase.segments,
            corpora={name: _as_new(shards) for name, shards in phase.corpora.items()},
        )[-1]
        for name, shards in phase.corpora.items():
            found = expected.corpora[name]
            if all(name not in each.corpora for each in before):
                found = replace(found, places=shards.places)
            if found != replace(shards, weights=found.weights):
                yield (
                    f"the corpus {name!r} does not continue from its position at slot "
                    f"{phase.first_slot:,}"
                )


def _as_new(shards: CorpusShards) -> CorpusShards:
    """The same shards, as at the start of a run."""
    return replace(shards, draws=0, pasts=((),) * len(shards.pasts))


@dataclass(frozen=True, slots=True)
class Parting:
    """The slot at which two runs part, and the reasons."""

    slot: int | None
    """The first slot that may differ; None: no difference is known."""
    reasons: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The comparison in words."""
        if self.slot is None:
            yield "Both runs read the same samples, as far as both have trained."
            return
        start = "The runs read different samples from the start."
        if self.slot:
            start = f"The runs read the same samples before slot {self.slot:,}, and then others."
        yield f"{start} They differ in (this run, the other):"
        yield from (f"  {reason}" for reason in self.reasons)


def compare_runs(one: Sequence[Audited], other: Sequence[Audited]) -> Parting:
    """The slot up to which two runs read the same samples, and the differences after it.

    Raises:
        ResumeError: A run has no state to compare.
    """
    a, b = _latest(one), _latest(other)
    fixed = [
        f"{name}: {a.fixed_facts.get(name, 'not set')!r}, {b.fixed_facts.get(name, 'not set')!r}"
        for name in a.fixed_facts | b.fixed_facts
        if a.fixed_facts.get(name) != b.fixed_facts.get(name)
    ]
    if fixed:
        return Parting(0, tuple(fixed))
    end = min(a.consumed_samples, b.consumed_samples)
    firsts = {c.first_slot for state in (a, b) for c in state.phases}
    firsts |= {s.first_slot for state in (a, b) for s in segments_read(state.phases)}
    firsts |= {slot for state in (a, b) for each in state.skips.stretches for slot in each}
    firsts |= {each.first_slot for state in (a, b) for each in state.removals}
    slots = [*sorted(slot for slot in firsts if slot < end), end]
    for begin, stop in pairwise(slots):
        if a.skips.before(stop).stretches != b.skips.before(stop).stretches:
            return Parting(begin, _skip_reasons(a, b))
        if removals_before(a.removals, stop) != removals_before(b.removals, stop):
            return Parting(begin, _removal_reasons(a, b))
        if not _contains(a.phases, b.phases, stop):
            return Parting(begin, _reasons(a.phases, b.phases, stop))
    return Parting(None, ())


def _latest(run: Sequence[Audited]) -> SavedState:
    states = [one.state for one in run if one.state is not None]
    if not states:
        raise ResumeError("no checkpoint of the run holds a loader state")
    return states[-1]


def _reasons(a: Sequence[Phase], b: Sequence[Phase], stop: int) -> tuple[str, ...]:
    one, other = ([c for c in run if c.first_slot < stop][-1] for run in (a, b))
    sides = {
        "first slot of the phase": (one.first_slot, other.first_slot),
        "seq_length": (one.seq_len, other.seq_len),
        "corpora": (sorted(one.corpora), sorted(other.corpora)),
        "shares": tuple(_shares(phase) if stop else {} for phase in (one, other)),
        "shards": tuple(
            {name: shards.names for name, shards in phase.corpora.items()} for phase in (one, other)
        ),
    }
    found = tuple(f"{name}: {x!r}, {y!r}" for name, (x, y) in sides.items() if x != y)
    return found or (
        "weights with equal ratios that may round differently, sizes of shards, or earlier "
        "progress",
    )


def _skip_reasons(a: SavedState, b: SavedState) -> tuple[str, ...]:
    one, other = ("; ".join(map(str, state.skipped)) or "none" for state in (a, b))
    return (f"skipped: {one}, {other}",)


def _removal_reasons(a: SavedState, b: SavedState) -> tuple[str, ...]:
    one, other = ("; ".join(map(str, state.removals)) or "none" for state in (a, b))
    return (f"removed: {one}, {other}",)


def _shares(phase: Phase) -> dict[str, float]:
    """Shares of the last segment, rounded for comparison."""
    shares = shares_of(segments_read([phase])[-1].weights)
    return {name: float(f"{share:.9g}") for name, share in shares.items()}


def audit_table(run: Sequence[Audited]) -> Table:
    """One row for each checkpoint."""
    has_skips = any(one.state.skipped for one in run if one.state is not None)
    has_removals = any(one.state.removals for one in run if one.state is not None)
    more = ["skipped slots"] * has_skips + ["removed documents"] * has_removals
    table = Table(("step", "consumed samples", *more, "phases", "segments", "digest", ""))
    for one in run:
        facts: list[int | str | None] = [None] * (4 + len(more))
        if one.state is not None:
            phases = one.state.phases
            counts = len(phases) or 1, len(segments_read(phases)) or 1
            consumed = one.state.consumed_samples
            skips = [consumed - one.state.skips.kept_before(consumed)] if has_skips else []
            removals = one.state.removals
            removed = [removals[-1].num_documents if removals else 0] if has_removals else []
            facts = [consumed, *skips, *removed, *counts, one.state.digest[:12]]
        table.add_row(f"{one.stored.step:,}", *facts, one.verdict())
    return table


def audit_json(run: Sequence[Audited], parting: Parting | None) -> dict[str, Any]:
    """The audit as JSON; with ``parting``, also where two runs part."""
    found: dict[str, Any] = {"checkpoints": [one.json() for one in run]}
    if parting is not None:
        found |= {"parts_at_slot": parting.slot, "reasons": list(parting.reasons)}
    return found


def check_proved(run: Sequence[Audited]) -> None:
    """Check that nothing is wrong with any checkpoint.

    Raises:
        ResumeError: A checkpoint has a problem, or none holds a state.
    """
    wrong = [one for one in run if one.problems]
    if wrong:
        raise ResumeError(
            f"{len(wrong)} of {len(run)} checkpoints are not proved: "
            + "; ".join(f"step {one.stored.step:,} {one.verdict()}" for one in wrong)
        )
    if all(one.state is None for one in run):
        raise ResumeError("no checkpoint holds a loader state: nothing is proved")
