"""Replicas that fail: each committed slot is read exactly once, whoever takes part in its step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.errors import ConfigError
from blendtitan.order.replicas import (
    BatchPolicy,
    DividedStep,
    ReplicaCourse,
    check_units,
    diverged,
    step_of,
)
from blendtitan.order.slots import Course

POLICIES = st.sampled_from(["same_batch", "smaller_batch"])


def slots_read(course: ReplicaCourse, committed: int) -> list[list[int]]:
    """The slots of each micro batch that a rank reads in the step that begins at ``committed``."""
    at, read = course.position(committed), list[list[int]]()
    for _ in range(len(course.step.units_of(course.replica)) * course.parts):
        start, index = course.block(at)
        read.append(course.slots(start)[index].tolist())
        at = course.after(at)
    assert at == course.position(committed + course.step_samples)
    return read


def courses(
    step: DividedStep, *, first_slot: int, micro_batch: int, ranks: int, parts: int = 1
) -> list[ReplicaCourse]:
    """The courses of all ranks of all replicas of a step."""
    return [
        ReplicaCourse(micro_batch, rank, ranks, first_slot, step, replica, parts)
        for replica in range(step.num_replicas)
        for rank in range(ranks)
    ]


@given(
    policy=POLICIES,
    all_replicas=st.integers(1, 4),
    shares=st.integers(1, 3),
    micro_batch=st.integers(1, 3),
    ranks=st.integers(1, 3),
    parts=st.integers(1, 2),
    attempts=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12),
)
def test_each_committed_slot_is_read_once_whatever_fails(
    *,
    policy: BatchPolicy,
    all_replicas: int,
    shares: int,
    micro_batch: int,
    ranks: int,
    parts: int,
    attempts: list[tuple[int, bool]],
) -> None:
    """In an attempt some replicas are missing. Its slots are read again if it is not committed."""
    committed, read = 0, list[int]()
    for missing, succeeds in attempts:
        step = step_of(
            policy,
            full_units=all_replicas * shares,
            all_replicas=all_replicas,
            num_replicas=max(1, all_replicas - missing),
        )
        of_ranks = courses(
            step, first_slot=committed, micro_batch=micro_batch, ranks=ranks, parts=parts
        )
        slots = [s for course in of_ranks for each in slots_read(course, committed) for s in each]
        if succeeds:
            read += sorted(slots)
            committed += of_ranks[0].step_samples

    assert read == list(range(committed))


@given(
    committed=st.integers(0, 50),
    shares=st.integers(1, 5),
    num_replicas=st.integers(1, 4),
    micro_batch=st.integers(1, 3),
    ranks=st.integers(1, 3),
    steps=st.integers(1, 3),
)
def test_equal_shares_read_what_as_many_ranks_of_one_job_read(
    *, committed: int, shares: int, num_replicas: int, micro_batch: int, ranks: int, steps: int
) -> None:
    step = DividedStep(shares * num_replicas, num_replicas)
    for place, course in enumerate(
        courses(step, first_slot=committed, micro_batch=micro_batch, ranks=ranks)
    ):
        plain = Course(micro_batch, place, num_replicas * ranks)
        start, expected = committed, list[list[int]]()
        for _ in range(shares * steps):
            expected.append(plain.slots(start)[0].tolist())
            start = plain.after(start)

        at = [committed + n * course.step_samples for n in range(steps)]
        assert [each for start in at for each in slots_read(course, start)] == expected


def test_a_batch_that_does_not_divide_gives_the_first_replicas_one_unit_more() -> None:
    """Eight units of two samples, three replicas; then one of them fails."""
    step = step_of("same_batch", full_units=8, all_replicas=3, num_replicas=3)
    first, second, third = courses(step, first_slot=0, micro_batch=2, ranks=1)

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
    course = ReplicaCourse(2, 0, 1, 10, DividedStep(3, 3), replica=1)
    same = ReplicaCourse(2, 0, 1, 22, DividedStep(3, 3), replica=1)

    assert course.continues(same, 22)
    assert not course.continues(same, 23)
    assert not course.continues(ReplicaCourse(2, 0, 1, 22, DividedStep(3, 3), replica=2), 22)
    assert not course.continues(ReplicaCourse(2, 0, 1, 22, DividedStep(2, 2), replica=1), 22)


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
        check_units(policy, full_units=full_units, unit=2, all_replicas=3)


def test_a_global_batch_that_can_be_divided_is_accepted() -> None:
    check_units("smaller_batch", full_units=6, unit=2, all_replicas=3)
    check_units("same_batch", full_units=4, unit=2, all_replicas=3)


def test_the_state_that_most_replicas_have_is_kept() -> None:
    assert diverged([7, 7, 7]) == set()
    assert diverged([5, 7, 7]) == {0}
    assert diverged([5, 7]) == {1}
