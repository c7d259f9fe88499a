"""Phases: blends, data and lengths change, while every row keeps its position."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.history.phases import CorpusShards, OrderSettings, Phase, phases_from, saved_phases
from blendtitan.history.run import account, with_next_phase
from blendtitan.order.blend import Segment
from blendtitan.order.segments import segments_of

TOKENS = {"a0": 90, "a1": 41, "a2": 130, "b0": 64, "b1": 25, "c0": 77}
"""Shards, their corpora being their first letters. Some epochs are short, some long."""


@dataclass(frozen=True)
class Plan:
    """The configuration of a run from some slot on."""

    samples: int
    shards: tuple[str, ...] = ("a0", "a1", "b0")
    shares: tuple[tuple[str, float], ...] = ()
    seq_len: int = 8


def corpora_of(plan: Plan, *, blended: bool) -> dict[str, CorpusShards]:
    found: dict[str, CorpusShards] = {}
    for corpus in sorted({name[0] for name in plan.shards}):
        names = tuple(name for name in plan.shards if name[0] == corpus)
        found[corpus] = CorpusShards(
            names=names,
            ids=tuple(f"id of {name}" for name in names),
            tokens=tuple(TOKENS[name] for name in names),
            weights=tuple(1.0 + i for i in range(len(names))),
            places=tuple(range(len(names))),
            pasts=((),) * (len(names) if blended else 1),
        )
    return found


def settings_of(*, shuffled: bool, blended: bool) -> OrderSettings:
    return OrderSettings(seed=3, split="train", shuffled=shuffled, blended=blended)


def phases_of_plans(history: list[Plan], order: OrderSettings) -> tuple[Phase, ...]:
    """The phases of a run that is resumed with each plan in turn."""
    phases: tuple[Phase, ...] = ()
    slot = 0
    for plan in history:
        corpora = corpora_of(plan, blended=order.blended)
        weights = {name: sum(shards.weights) for name, shards in corpora.items()}
        shares = {name: share for name, share in plan.shares if name in weights}
        segments = segments_of(weights, [Segment(slot, shares)] if shares else [])
        if phases:
            phases = with_next_phase(
                phases, order, slot=slot, seq_len=plan.seq_len, segments=segments,
                corpora=corpora,
            )  # fmt: skip
        else:
            phases = (
                Phase(first_slot=0, seq_len=plan.seq_len, segments=segments, corpora=corpora),
            )
        slot += plan.samples
    return phases


@dataclass(frozen=True)
class Read:
    """One sample: where its inputs lie in its row."""

    row: str
    epoch: int
    seq_len: int
    tokens: tuple[int, ...]


def samples_of(phases: tuple[Phase, ...], end: int, order: OrderSettings) -> list[Read]:
    """All samples of a run, each phase up to the next."""
    stops = [*(phase.first_slot for phase in phases[1:]), end]
    found: list[Read] = []
    for phase, stop in zip(phases, stops, strict=True):
        built = phase.order(order)
        rows = [
            "+".join(shards.names[row])
            for shards in phase.corpora.values()
            for row in shards.row_slices(blended=order.blended)
        ]
        at = built.places(np.arange(phase.first_slot, stop))
        for i, (row, epoch) in enumerate(zip(at.rows, at.epochs, strict=True)):
            *others, (last, count) = built.stretches(at, i)
            stretches = [*others, (last, count - 1)]  # without the last label
            tokens = tuple(t for s, n in stretches for t in range(s, s + n))
            found.append(Read(rows[row], int(epoch), phase.seq_len, tokens))
    return found


SHARES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0.25, 1.0, 3.0])), max_size=3
).map(tuple)
SHARDS = st.sets(st.sampled_from(sorted(TOKENS)), min_size=1).map(lambda s: tuple(sorted(s)))
FLAGS = st.fixed_dictionaries({"shuffled": st.booleans(), "blended": st.booleans()})


def plans(lengths: st.SearchStrategy[int]) -> st.SearchStrategy[list[Plan]]:
    each = st.builds(
        Plan, samples=st.integers(0, 60), shards=SHARDS, shares=SHARES, seq_len=lengths
    )
    return st.lists(each, min_size=1, max_size=6)


@given(history=plans(st.just(8)), flags=FLAGS)
def test_every_window_of_an_epoch_is_read_once_over_any_history(
    history: list[Plan], flags: Mapping[str, bool]
) -> None:
    """Whatever shards and shares come, go and come back: no window twice, none left behind."""
    order = settings_of(**flags)
    reads = samples_of(phases_of_plans(history, order), sum(p.samples for p in history), order)
    epochs: dict[str, dict[int, list[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(list))
    for read in reads:
        epochs[read.row][read.epoch].append(read.tokens)
    for row, seen in epochs.items():
        num_windows = max(1, (sum(TOKENS[name] for name in row.split("+")) - 1) // 8)

        assert sorted(seen) == list(range(len(seen)))
        for epoch, windows in seen.items():
            assert len(set(windows)) == len(windows)
            assert len(windows) == num_windows or epoch == len(seen) - 1


@given(history=plans(st.sampled_from([4, 8, 12, 30])), flags=FLAGS)
def test_no_token_of_an_epoch_is_read_twice_whatever_the_lengths(
    history: list[Plan], flags: Mapping[str, bool]
) -> None:
    """And an epoch that was left for the next one lacks less than one window for each length."""
    order = settings_of(**flags)
    reads = samples_of(phases_of_plans(history, order), sum(p.samples for p in history), order)
    count: dict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    lengths: dict[tuple[str, int], list[int]] = defaultdict(list)
    for read in reads:
        size = sum(TOKENS[name] for name in read.row.split("+"))
        if size > read.seq_len:  # the only window of a shorter row wraps around
            count[read.row, read.epoch].update(read.tokens)
            lengths[read.row, read.epoch].append(read.seq_len)
    for (row, epoch), tokens in count.items():
        assert set(tokens.values()) == {1}
        if (row, epoch + 1) in count:
            size = sum(TOKENS[name] for name in row.split("+"))
            assert size - 1 - len(tokens) < 30 * (1 + len(set(lengths[row, epoch])))


@given(history=plans(st.sampled_from([8, 12])), flags=FLAGS, data=st.data())
def test_a_history_resumed_at_any_slot_equals_the_uninterrupted_one(
    history: list[Plan], flags: Mapping[str, bool], data: st.DataObject
) -> None:
    """The run is stopped within a plan, saved, and resumed with the same plan."""
    order = settings_of(**flags)
    end = sum(plan.samples for plan in history)
    at = data.draw(st.integers(0, len(history) - 1))
    begun = phases_of_plans(history[: at + 1], order)
    loaded = phases_from(saved_phases(begun), blended=order.blended)
    slot = sum(plan.samples for plan in history[: at + 1])

    assert loaded == begun
    assert (
        samples_of(loaded, slot, order)
        == samples_of(phases_of_plans(history, order), end, order)[:slot]
    )


def test_an_unchanged_corpus_continues_in_its_blend_of_shards() -> None:
    """So a change of shares by hand gives what the same change planned as a segment gives."""
    order = settings_of(shuffled=True, blended=True)
    before = Plan(40, shares=(("a", 1.0), ("b", 1.0)))
    after = Plan(100, shares=(("a", 1.0), ("b", 3.0)))
    by_hand = samples_of(phases_of_plans([before, after], order), 140, order)
    corpora = corpora_of(before, blended=True)
    changes = [Segment(0, {"a": 1.0, "b": 1.0}), Segment(40, {"a": 1.0, "b": 3.0})]
    planned = Phase(
        first_slot=0, seq_len=8, segments=segments_of({"a": 3.0, "b": 1.0}, changes),
        corpora=corpora,
    )  # fmt: skip

    assert by_hand == samples_of((planned,), 140, order)


def test_sequential_reading_continues_at_the_same_token() -> None:
    """5 windows of 8 are 40 tokens: the first window of 12 begins at token 40."""
    order = settings_of(shuffled=False, blended=False)
    history = [Plan(5, shards=("a0",)), Plan(5, shards=("a0",), seq_len=12)]
    reads = samples_of(phases_of_plans(history, order), 10, order)

    assert [read.tokens[0] for read in reads[:9]] == [0, 8, 16, 24, 32, 40, 52, 64, 76]
    assert [read.epoch for read in reads] == [0] * 9 + [1]


def test_the_account_has_a_line_for_each_corpus() -> None:
    order = settings_of(shuffled=False, blended=True)
    history = [
        Plan(5, shards=("a0", "b0")),
        Plan(4, shards=("a0", "a1", "c0"), seq_len=12),
    ]
    lines = list(account(phases_of_plans(history, order), order))

    assert lines[0] == (
        "a: 1 of 2 rows continue in their epoch, 1 begin with their first window; the remainders "
        "of 1 unfinished epochs are read first, as 5 windows of 12 tokens; 4 tokens are skipped"
    )
    assert lines[1:] == ["c: new, read from its beginning", "b: no longer read"]


@pytest.mark.parametrize(
    "damage",
    [
        {"first_slot": 1}, {"first_slot": "0"}, {"seq_length": 0}, {"segments": []},
        {"segments": [{"first_slot": 0, "weights": {"z": 1.0}}]},
        {"segments": [{"first_slot": 0, "weights": {"a": float("nan")}}]},
        {"segments": [{"first_slot": 0, "weights": {"a": 1e308, "b": 1e308}}]},
        {"corpora": {}}, {"corpora": {"a": {}}}, {"corpora": None},
    ],
)  # fmt: skip
def test_damaged_phases_are_refused(damage: dict[str, object]) -> None:
    order = settings_of(shuffled=True, blended=True)
    saved = saved_phases(phases_of_plans([Plan(5)], order))

    with pytest.raises(ValueError, match="damaged phases"):
        phases_from([saved[0] | damage], blended=True)
