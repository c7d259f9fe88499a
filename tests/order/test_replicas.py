"""Replicas that fail: each committed slot is read exactly once, whoever takes part in its step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.errors import ConfigError, ResumeError
from blendtitan.order.course import NO_SKIPS, ChangedCourse, Skips
from blendtitan.order.replicas import (
    BatchPolicy,
    Costs,
    DividedStep,
    ReplicaCourse,
    Stage,
    balanced_shares,
    check_units,
    diverged,
    plain_share,
    slowest,
    step_of,
)

POLICIES = st.sampled_from(["same_batch", "smaller_batch"])
SKIPS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=3).map(
    lambda found: Skips.of((first, first + count) for first, count in found)
)
COSTS = st.sampled_from([None, lambda slots: slots * 7919 % 101])


def slots_read(course: ReplicaCourse, committed: int) -> list[list[int]]:
    """The slots of each micro batch that a rank reads in the step that begins at ``committed``."""
    at, end, read = course.position(committed), course.end(committed), list[list[int]]()
    while at < end and course.block(at)[0] == committed:
        start, index = course.block(at)
        read.append(course.slots(start)[index].tolist())
        at = course.after(at)
    assert at == course.position(end)
    return read


def courses(
    stages: list[Stage],
    *,
    num_replicas: int,
    micro_batch: int,
    ranks: int = 1,
    skips: Skips = NO_SKIPS,
    costs: Costs | None = None,
) -> list[ReplicaCourse]:
    """The courses of all ranks of all replicas, with steps of these sizes."""
    return [
        ReplicaCourse(
            *(micro_batch, rank, ranks, replica, num_replicas, tuple(stages)),
            skips=skips,
            costs=costs,
        )
        for replica in range(num_replicas)
        for rank in range(ranks)
    ]


@given(
    policy=POLICIES,
    all_replicas=st.integers(1, 4),
    shares=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    micro_batch=st.integers(1, 3),
    ranks=st.integers(1, 3),
    skips=SKIPS,
    costs=COSTS,
    attempts=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12),
)
def test_each_committed_slot_is_read_once_whatever_fails(
    *,
    policy: BatchPolicy,
    all_replicas: int,
    shares: tuple[int, int],
    micro_batch: int,
    ranks: int,
    skips: Skips,
    costs: Costs | None,
    attempts: list[tuple[int, bool]],
) -> None:
    """In an attempt some replicas are missing. Its slots are read again if it is not committed.

    Steps have another size after the third one, and may be balanced.
    """
    committed, steps, read = skips.first_kept(0), 0, list[int]()
    for missing, succeeds in attempts:
        num_replicas = max(1, all_replicas - missing)
        units = [
            step_of(
                policy,
                full_units=all_replicas * share,
                all_replicas=all_replicas,
                num_replicas=num_replicas,
            ).num_units
            for share in shares
        ]
        sizes = [each * micro_batch * ranks for each in units]
        kept = skips.kept_before(committed)
        later = [(kept + (3 - steps) * sizes[0], sizes[1])]
        stages = [(kept, sizes[0]), *later] if steps < 3 else [(kept, sizes[1])]
        of_ranks = courses(
            stages,
            num_replicas=num_replicas,
            micro_batch=micro_batch,
            ranks=ranks,
            skips=skips,
            costs=costs,
        )
        slots = [s for course in of_ranks for each in slots_read(course, committed) for s in each]
        if succeeds:
            read += sorted(slots)
            committed, steps = of_ranks[0].end(committed), steps + 1

    assert read == [slot for slot in range(committed) if not skips.holds(slot)]


@given(
    first=st.integers(0, 50),
    shares=st.integers(1, 5),
    num_replicas=st.integers(1, 4),
    micro_batch=st.integers(1, 3),
    ranks=st.integers(1, 3),
    steps=st.integers(1, 3),
    skips=SKIPS,
)
def test_equal_shares_read_what_as_many_ranks_of_one_job_read(
    *,
    first: int,
    shares: int,
    num_replicas: int,
    micro_batch: int,
    ranks: int,
    steps: int,
    skips: Skips,
) -> None:
    committed = skips.first_kept(first)
    size = shares * num_replicas * ranks * micro_batch
    stages = [(skips.kept_before(committed), size)]
    of_ranks = courses(
        stages, num_replicas=num_replicas, micro_batch=micro_batch, ranks=ranks, skips=skips
    )
    for place, course in enumerate(of_ranks):
        plain = ChangedCourse(micro_batch, place, num_replicas * ranks, skips=skips)
        at, start = committed, committed
        for _ in range(steps):
            expected = list[list[int]]()
            for _ in range(shares):
                block, index = plain.block(at)
                expected.append(plain.slots(block)[index].tolist())
                at = plain.after(at)

            assert slots_read(course, start) == expected
            start = course.end(start)


@given(
    costs=st.lists(st.integers(0, 99), min_size=24, max_size=24),
    num_replicas=st.integers(1, 5),
    shape=st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]),
)
def test_balanced_replicas_read_as_many_rows_and_are_never_ready_later(
    costs: list[int], num_replicas: int, shape: tuple[int, int]
) -> None:
    array = np.array(costs)
    step = DividedStep(24 // (shape[0] * shape[1]), num_replicas)
    plain = [plain_share(step, replica, shape) for replica in range(num_replicas)]
    shares = balanced_shares(array, step, shape)

    assert [share.shape for share in shares] == [share.shape for share in plain]
    assert sorted(row for share in shares for row in share.ravel().tolist()) == list(range(24))
    assert slowest(array, shares) <= slowest(array, plain)


def test_a_balanced_step_spreads_expensive_rows_over_the_replicas() -> None:
    """Of four rows, two are expensive, and in the order of the slots one replica has both."""
    shares = balanced_shares(np.array([9, 1, 9, 1]), DividedStep(4, 2), (1, 1))

    assert [share.ravel().tolist() for share in shares] == [[0, 1], [2, 3]]


def test_a_state_within_a_step_is_refused() -> None:
    (course,) = courses([(0, 4)], num_replicas=1, micro_batch=1)

    assert course.between_steps(8) == 8
    with pytest.raises(ResumeError, match="9 consumed samples are within a step"):
        course.between_steps(9)


def test_a_batch_that_does_not_divide_gives_the_first_replicas_one_unit_more() -> None:
    """Eight units of two samples, three replicas; then one of them fails."""
    first, second, third = courses([(0, 16)], num_replicas=3, micro_batch=2)

    assert slots_read(first, 0) == [[0, 1], [6, 7], [12, 13]]
    assert slots_read(second, 0) == [[2, 3], [8, 9], [14, 15]]
    assert slots_read(third, 0) == [[4, 5], [10, 11]]

    step = step_of("same_batch", full_units=8, all_replicas=3, num_replicas=2)
    assert [len(step.units_of(replica)) for replica in (0, 1)] == [4, 4]


def test_with_a_smaller_batch_each_replica_keeps_its_share() -> None:
    sizes = [
        step_of("smaller_batch", full_units=12, all_replicas=4, num_replicas=present).num_units
        for present in (4, 3, 1)
    ]

    assert sizes == [12, 9, 3]


def test_a_course_predicts_the_next_steps_of_the_same_replicas_only() -> None:
    _, course, _ = courses([(10, 6), (34, 12)], num_replicas=3, micro_batch=2)
    _, same, third = courses([(22, 6), (34, 12)], num_replicas=3, micro_batch=2)
    _, fewer = courses([(22, 6), (34, 12)], num_replicas=2, micro_batch=2)
    _, larger, _ = courses([(22, 6)], num_replicas=3, micro_batch=2)
    _, between, _ = courses([(23, 6), (34, 12)], num_replicas=3, micro_batch=2)

    assert course.continues(same, 22)
    assert not course.continues(between, 23)
    assert not course.continues(third, 22)
    assert not course.continues(fewer, 22)
    assert not course.continues(larger, 22)


@pytest.mark.parametrize(
    ("policy", "full_units", "expected"),
    [
        ("smaller_batch", 4, r"global_batch_size is 8, expected a multiple of 6: .*group_size = 3"),
        ("same_batch", 2, r"global_batch_size is 4, expected at least 6"),
    ],
)
def test_a_global_batch_without_a_share_for_each_replica_is_refused(
    policy: BatchPolicy, full_units: int, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_units(
            policy,
            key="training.global_batch_size",
            full_units=full_units,
            unit=2,
            all_replicas=3,
        )


def test_a_global_batch_that_can_be_divided_is_accepted() -> None:
    check_units("smaller_batch", key="size", full_units=6, unit=2, all_replicas=3)
    check_units("same_batch", key="size", full_units=4, unit=2, all_replicas=3)


def test_the_state_that_most_replicas_have_is_kept() -> None:
    assert diverged([7, 7, 7]) == set()
    assert diverged([5, 7, 7]) == {0}
    assert diverged([5, 7]) == {1}


def test_a_state_from_a_checkpoint_does_not_replace_a_newer_one() -> None:
    """When two of three replicas start again, the third one's state is kept."""
    assert diverged([0, 0, 7]) == {0, 1}
    assert diverged([0, 0]) == set()
