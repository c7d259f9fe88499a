"""Proof, from the states in a run's checkpoints, that each goes on where the one before stopped.

The order is arithmetic and the states hold all that it depends on, so nothing but the states is
read: no data, no weights. What is proved of two neighbours:

- seed, split and flags are the same;
- the later one knows the history of the earlier one: its chapters, its segments up to there, and
  its paces;
- the last 4,096 samples before the earlier one, in the order of the later one, have the earlier
  one's digest;
- chapters that began in between begin where every row stood then;
- both stand where steps and global batch sizes bring them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from blendtitan.errors import ResumeError
from blendtitan.history.next_phase import with_next_phase
from blendtitan.history.phases import CorpusShards, Phase, segments_read
from blendtitan.order.blend import shares_of
from blendtitan.pace import Paces, consumed_at, paces_of_state
from blendtitan.runs.checkpoints import StoredState, stored_states
from blendtitan.state import SavedState, digest_of, digest_slots, order_settings, parse_state


@dataclass(slots=True)
class Audited:
    """One checkpoint and what is wrong with it."""

    stored: StoredState
    state: SavedState | None = None
    paces: Paces = ()
    problems: list[str] = field(default_factory=list)


def audit_run(run_folder: Path) -> list[Audited]:
    """Every checkpoint of a run, each proved against the one before that can be read.

    Raises:
        ConfigError: There is no checkpoint.
    """
    found = [_audited(stored) for stored in stored_states(run_folder)]
    known = [one for one in found if one.state is not None]
    for one in known:
        one.problems += _place_problems(one)
    for before, after in pairwise(known):
        assert before.state is not None
        assert after.state is not None
        after.problems += continuation_problems(before.state, after.state)
        if after.paces[: len(before.paces)] != before.paces:
            after.problems.append(
                f"its steps had other numbers of samples than step {before.stored.step:,} tells"
            )
    return found


def _audited(stored: StoredState) -> Audited:
    if stored.state_dict is None:
        return Audited(stored, problems=[stored.note] if stored.is_damaged else [])
    try:
        state, paces = parse_state(stored.state_dict), paces_of_state(stored.state_dict)
    except ResumeError as error:
        return Audited(stored, problems=[str(error)])
    return Audited(stored, state, paces)


def _place_problems(one: Audited) -> list[str]:
    assert one.state is not None
    if not one.paces:
        return []
    expected = consumed_at(one.paces, one.stored.step)
    if one.state.consumed_samples == expected:
        return []
    return [
        f"consumed {one.state.consumed_samples:,} samples, expected {expected:,} at step "
        f"{one.stored.step:,}"
    ]


def continuation_problems(before: SavedState, after: SavedState) -> list[str]:
    """Why ``after`` does not go on where ``before`` stopped; nothing if it does."""
    if before.fixed_facts != after.fixed_facts:
        names = [
            name
            for name in before.fixed_facts
            if before.fixed_facts[name] != after.fixed_facts.get(name)
        ]
        return [f"has another {', '.join(names)} than the checkpoint before"]
    consumed = before.consumed_samples
    if after.consumed_samples < consumed:
        return [f"consumed {after.consumed_samples:,} samples, the one before it {consumed:,}"]
    problems: list[str] = []
    if not _knows(after.phases, before.phases, consumed):
        problems.append("has another history than the checkpoint before")
    elif _digest_at(after, before) != before.digest:
        problems.append(
            f"has other samples before slot {consumed:,} than the checkpoint before trained on"
        )
    return problems + _chapter_problems(after)


def _knows(later: Sequence[Phase], earlier: Sequence[Phase], slot: int) -> bool:
    """Whether a history begins with another one, of which ``slot`` samples were consumed."""
    begun = [chapter for chapter in later if chapter.first_slot < slot]
    earlier = [chapter for chapter in earlier if chapter.first_slot < slot]
    return len(begun) == len(earlier) and all(
        replace(one, segments=()) == replace(other, segments=())
        and _segments_until(one, slot) == _segments_until(other, slot)
        for one, other in zip(begun, earlier, strict=True)
    )


def _segments_until(chapter: Phase, slot: int) -> list[object]:
    return [segment for segment in segments_read([chapter]) if segment.first_slot < slot]


def _digest_at(later: SavedState, earlier: SavedState) -> str:
    """The digest of the earlier state, in the order of the later one."""
    if not earlier.phases:  # the original's order, which only the data tell
        return earlier.digest
    first_slot = earlier.phases[-1].first_slot
    slots = digest_slots(first_slot, earlier.consumed_samples)
    if len(slots) == 0:
        return earlier.digest
    chapter = next(chapter for chapter in later.phases if chapter.first_slot == first_slot)
    order = chapter.order(order_settings(later.fixed_facts))
    return digest_of(order.places(slots).sample_ids)


def _chapter_problems(state: SavedState) -> list[str]:
    """Chapters that do not begin where the rows of those before stood."""
    settings = order_settings(state.fixed_facts)
    problems: list[str] = []
    for number in range(1, len(state.phases)):
        chapter = state.phases[number]
        expected = with_next_phase(
            state.phases[:number],
            settings,
            slot=chapter.first_slot,
            seq_len=chapter.seq_len,
            segments=chapter.segments,
            corpora={name: _as_new(shards) for name, shards in chapter.corpora.items()},
        )[-1]
        for name, shards in chapter.corpora.items():
            is_new = all(name not in each.corpora for each in state.phases[:number])
            found = expected.corpora[name]
            if is_new:
                found = replace(found, places=shards.places)
            if found != replace(shards, weights=found.weights):
                problems.append(
                    f"the corpus {name!r} does not go on at slot {chapter.first_slot:,} where its "
                    f"rows stood"
                )
    return problems


def _as_new(shards: CorpusShards) -> CorpusShards:
    """The same shards, as a run would begin with them."""
    return replace(shards, draws=0, pasts=((),) * len(shards.pasts))


@dataclass(frozen=True, slots=True)
class Parting:
    """Up to where two runs read the same samples."""

    slot: int | None
    """The first slot that may differ; None: neither run tells a difference."""
    reasons: tuple[str, ...]


def compare_runs(one: Sequence[Audited], other: Sequence[Audited]) -> Parting:
    """Up to which slot two runs read the same samples, and what differs from there on.

    Raises:
        ResumeError: A run has no state to compare.
    """
    a, b = _latest(one), _latest(other)
    fixed = [
        f"{name}: {a.fixed_facts.get(name)!r}, {b.fixed_facts.get(name)!r}"
        for name in a.fixed_facts | b.fixed_facts
        if a.fixed_facts.get(name) != b.fixed_facts.get(name)
    ]
    if fixed:
        return Parting(0, tuple(fixed))
    end = min(a.consumed_samples, b.consumed_samples)
    firsts = {c.first_slot for state in (a, b) for c in state.phases}
    firsts |= {s.first_slot for state in (a, b) for s in segments_read(state.phases)}
    slots = [*sorted(slot for slot in firsts if slot < end), end]
    for begin, stop in pairwise(slots):
        if not _knows(a.phases, b.phases, stop):
            return Parting(begin, _reasons(a.phases, b.phases, stop))
    return Parting(None, ())


def _latest(run: Sequence[Audited]) -> SavedState:
    states = [one.state for one in run if one.state is not None]
    if not states:
        raise ResumeError("no checkpoint of the run holds a state of the data loader")
    return states[-1]


def _reasons(a: Sequence[Phase], b: Sequence[Phase], stop: int) -> tuple[str, ...]:
    one, other = ([c for c in run if c.first_slot < stop][-1] for run in (a, b))
    sides = {
        "first slot of the chapter": (one.first_slot, other.first_slot),
        "seq_length": (one.seq_len, other.seq_len),
        "corpora": (sorted(one.corpora), sorted(other.corpora)),
        "shares": tuple(_shares(chapter) if stop else {} for chapter in (one, other)),
        "shards": tuple(
            {name: shards.names for name, shards in chapter.corpora.items()}
            for chapter in (one, other)
        ),
    }
    found = tuple(f"{name}: {x!r}, {y!r}" for name, (x, y) in sides.items() if x != y)
    return found or (
        "weights in the same proportions that may round differently, sizes of shards, or how far "
        "they had been read before",
    )


def _shares(chapter: Phase) -> dict[str, float]:
    """Shares of the last segment, to the digits that a person would compare."""
    shares = shares_of(segments_read([chapter])[-1].weights)
    return {name: float(f"{share:.9g}") for name, share in shares.items()}
