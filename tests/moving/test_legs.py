"""The legs of a run: given as numbers, found in logs, and what they read of an order."""

import json
import random
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from blendtitan.batch_schedule import consumed_at, saved_schedule, schedule_of_state, slots_of
from blendtitan.errors import ConfigError
from blendtitan.moving.legs import (
    Leg,
    LoggedLeg,
    check_started_alike,
    first_unread,
    legs_of_numbers,
    logged_legs,
    reads_of,
    resolved,
    schedule_of,
)
from blendtitan.state import STATE_KEY

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6)
BATCHES = st.integers(1, 5)


def legs_of(lengths: list[int]) -> tuple[Leg, ...]:
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    return tuple(Leg(end - n, end) for end, n in zip(ends, lengths, strict=True))


def slots_of_step(leg: Leg, step: int, batch: int) -> range:
    """What the original read in a step: each leg began with slot 0."""
    return range((step - 1 - leg.begin) * batch, (step - leg.begin) * batch)


# Given as numbers


def test_legs_follow_one_another() -> None:
    assert legs_of_numbers(["0-1000", "1000-2500"]) == (Leg(0, 1000), Leg(1000, 2500))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1000"], "the leg is '1000', expected a log file that exists, or the step it began at"),
        (["0-5", "5-5"], "the leg is '5-5', expected"),
        (["5-9"], r"the leg 5-9 is the first leg, expected it to begin at 0\. Also give the legs"),
        (["0-9", "9-12", "3-15"], "the leg 3-15 follows 9-12: they are out of order"),
        (
            ["0-1043", "1000-2500"],
            r"the leg 1000-2500 overlaps 0-1043, expected it to begin at 1043\. Steps 1,001 to "
            r"1,043 of the earlier leg were undone .* give that leg as 0-1000\.",
        ),
        (["0-9", "12-15"], "a leg between them is missing"),
    ],
    ids=str,
)
def test_legs_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        legs_of_numbers(words)


# What they read


@given(LENGTHS, BATCHES, st.integers(0, 9))
def test_samples_are_counted_as_by_reading_them(lengths: list[int], batch: int, more: int) -> None:
    legs = legs_of(lengths)
    num_slots = max(lengths) * batch + more
    counts = Counter(
        slot
        for leg in legs
        for step in range(leg.begin + 1, leg.end + 1)
        for slot in slots_of_step(leg, step, batch)
    )
    found = reads_of(legs, global_batch_size=batch, num_slots=num_slots)

    assert [each.times for each in found for _ in each.slots] == [
        counts[slot] for slot in range(num_slots)
    ]
    assert first_unread(legs, global_batch_size=batch) == max(counts) + 1


@given(LENGTHS, BATCHES)
def test_the_batch_schedule_tells_what_each_step_read(lengths: list[int], batch: int) -> None:
    """That of the past; and that the next step reads the first samples that were never read."""
    legs = legs_of(lengths)
    schedule = schedule_of(legs, global_batch_size=batch)
    unread = first_unread(legs, global_batch_size=batch)
    for leg in legs:
        for step in range(leg.begin + 1, leg.end + 1):
            assert slots_of(schedule, step) == slots_of_step(leg, step, batch)

    assert consumed_at(schedule, legs[-1].end) == unread
    assert consumed_at(schedule, legs[-1].end + 3) == unread + 3 * batch


@given(LENGTHS, BATCHES)
def test_the_batch_schedule_is_one_that_a_state_can_hold(lengths: list[int], batch: int) -> None:
    schedule = schedule_of(legs_of(lengths), global_batch_size=batch)

    assert schedule_of_state({STATE_KEY: json.dumps(saved_schedule(schedule))}) == schedule


def test_a_leg_beyond_the_horizon_is_refused() -> None:
    message = (
        r"the leg 1000-2500 read 1,500 steps of 4 samples, but the original's order has only 5,000"
    )
    with pytest.raises(ConfigError, match=message):
        reads_of(legs_of([1000, 1500]), global_batch_size=4, num_slots=5000)


# Found in logs

STARTED = """\
[rank0]:[titan] 2025-10-01 12:00:00,000 - root - INFO - Trainer is initialized with local batch \
size 2, global batch size 8, gradient accumulation steps 1, sequence length 4096, total steps 900 \
(warmup 20)
[rank1]:[titan] 2025-10-01 12:00:00,000 - root - INFO - Training starts at step 1
[rank0]:[titan] 2025-10-01 12:00:00,000 - root - INFO - Training starts at step 1
"""


def log_of(begin: int, last: int, freq: int) -> list[str]:
    """As TorchTitan logs it: the first step of a run, and every ``freq``-th."""
    steps = [step for step in range(begin + 1, last + 1) if step == 1 or step % freq == 0]
    return [f"[titan] Training starts at step {begin + 1}"] + [
        f"[titan] \x1b[31mstep: {step:2}  \x1b[32mloss:  8.1" for step in steps
    ]


def test_a_log_says_where_its_legs_began_and_how() -> None:
    """The lines of one rank count, in colour or not; those of a validation have its step."""
    lines = [*STARTED.splitlines(), "[rank0]:step:  1", "[rank1]:step:  1", "[rank0]:step: 10"]
    lines += ["[rank0]:validate step: 10  loss: 7", "[rank0]:Training starts at step 6"]

    assert logged_legs("a.log", lines) == [
        LoggedLeg(log="a.log", begin=0, last=10, spacing=9, global_batch_size=8, total_steps=900),
        LoggedLeg(log="a.log", begin=5, last=5),
    ]


def test_a_log_without_its_beginning_is_refused() -> None:
    """The first logged step is not the first step of the leg."""
    with pytest.raises(ConfigError, match=r"b\.log: step 1,010 is logged, but no line 'Training"):
        logged_legs("b.log", ["step: 1010"])


def test_steps_that_were_undone_do_not_count() -> None:
    """A run that failed at step 1,043 and began again from its checkpoint of step 1,000."""
    logs = [log_of(0, 1043, 10), log_of(1000, 1002, 10), log_of(1000, 2500, 10)]
    found = resolved([leg for log in logs for leg in logged_legs("log", log)], end=2400)

    assert found.legs == (Leg(0, 1000), Leg(1000, 2400))
    assert found.undone[0] == ("Steps 1,001 to 1,040 were undone: the leg in log is at 1,000.")
    assert found.undone[-1] == "Steps 2,401 to 2,500 were undone: the checkpoint is at 2,400."


@pytest.mark.parametrize(
    ("begins", "end", "message"),
    [
        ([(1000, 2000)], None, "the leg in log is at step 1,000, but the logs before it end at"),
        ([(0, 1000), (1500, 2000)], None, "is at step 1,500, but the logs before it end at step"),
        ([(0, 1000)], 1500, "the checkpoint is at step 1,500, but the logs .* A log is missing"),
        ([(0, 0)], None, "the logs have no steps of training"),
    ],
    ids=str,
)  # fmt: skip
def test_logs_that_leave_steps_out_are_refused(
    begins: list[tuple[int, int]], end: int | None, message: str
) -> None:
    logged = [leg for each in begins for leg in logged_legs("log", log_of(*each, 10))]

    with pytest.raises(ConfigError, match=message):
        resolved(logged, end=end)


@given(st.randoms(use_true_random=False), st.integers(1, 7), st.integers(1, 6))
def test_legs_are_found_in_the_logs_of_any_run(
    rng: random.Random, freq: int, interval: int
) -> None:
    """A run that fails anywhere, again and again, and begins from any of its checkpoints."""
    leg_of_step: list[int] = []
    logged: list[LoggedLeg] = []
    for number in range(rng.randint(1, 6)):
        begin = rng.randrange(0, len(leg_of_step) + 1, interval)
        # The first leg is long enough to show how often steps are logged.
        last = begin + rng.randint(0 if number else 2 * freq, 40)
        leg_of_step[begin:] = [number] * (last - begin)
        logged += logged_legs("log", log_of(begin, last, freq))
    assume(leg_of_step)  # not begun again from step 0 at the end, without a step
    end = len(leg_of_step)
    expected = [
        Leg(leg_of_step.index(number), leg_of_step.index(number) + leg_of_step.count(number))
        for number in dict.fromkeys(leg_of_step)
    ]

    assert list(resolved(logged, end=end).legs) == expected


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"global_batch_size": 16}, r"global batch size of 16, expected 8, training\.global_batch"),
        ({"total_steps": 1000}, r"started for 1,000 steps of 8 samples, expected 7,200 samples"),
    ],
    ids=str,
)
def test_legs_in_other_orders_are_refused(facts: dict[str, int], message: str) -> None:
    """The order of the original depends on both numbers."""
    alike = LoggedLeg(log="a.log", begin=0, last=5, global_batch_size=8, total_steps=900)
    check_started_alike([alike], global_batch_size=8, num_samples=7200)
    other = LoggedLeg(log="b.log", begin=5, last=9, **facts)

    with pytest.raises(ConfigError, match=rf"b\.log: the leg from step 5 on .*{message}"):
        check_started_alike([alike, other], global_batch_size=8, num_samples=7200)
