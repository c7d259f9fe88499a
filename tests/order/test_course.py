"""Courses: skipped slots are never read, every other slot exactly once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.order.course import ChangedCourse, Skips, Step
from blendtitan.order.slots import Course

stretches = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 30)).map(lambda each: (each[0], sum(each))),
    max_size=4,
)


@given(stretches, st.integers(1, 3), st.integers(1, 3))
def test_the_ranks_together_read_every_other_slot_once_in_order(
    skipped: list[tuple[int, int]], micro_batch: int, dp_world_size: int
) -> None:
    ranks = range(dp_world_size)
    skips = Skips.of(skipped)
    courses = [ChangedCourse(micro_batch, rank, dp_world_size, skips=skips) for rank in ranks]
    consumed, read = 0, list[int]()
    while consumed < 200:
        for course in courses:
            start, index = course.block(consumed)
            read += course.slots(start)[index].tolist()
        consumed = courses[0].after(consumed)

    left_out = {slot for first, stop in skipped for slot in range(first, stop)}
    expected = [slot for slot in range(read[-1] + 1) if slot not in left_out]
    assert read == expected


@given(stretches, st.integers(0, 200))
def test_a_slot_and_its_number_in_the_stream_lead_to_each_other(
    skipped: list[tuple[int, int]], kept: int
) -> None:
    skips = Skips.of(skipped)
    slot = skips.slot_of(kept)

    assert skips.kept_before(slot) == kept
    assert all(not first <= slot < stop for first, stop in skipped)


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4))
def test_without_skips_it_is_the_plain_course(
    consumed: int, micro_batch: int, dp_world_size: int
) -> None:
    plain = Course(micro_batch, dp_world_size - 1, dp_world_size)
    changed = ChangedCourse(micro_batch, dp_world_size - 1, dp_world_size)

    assert changed.after(consumed) == plain.after(consumed)
    assert changed.block(consumed) == plain.block(consumed)
    assert np.array_equal(changed.slots(consumed), plain.slots(consumed))


def test_the_slots_of_a_step_can_be_dealt_in_another_way() -> None:
    """Two steps of eight samples, slots 4 to 6 skipped; ranks get every other slot."""

    def deal(slots: np.ndarray) -> np.ndarray:
        return slots.reshape(2, 2, 2).transpose(0, 2, 1)

    skips = Skips.of([(4, 7)])
    steps = [Step(0, 8), Step(11, 8)]
    course = ChangedCourse(
        *(2, 1, 2), skips=skips, deal=deal, step_at=lambda at: steps[int(at >= 11)]
    )

    assert course.slots(0).tolist() == [[1, 3], [8, 10]]
    assert course.block(7) == (0, 1)
    assert course.after(7) == 11
    assert course.slots(11).tolist() == [[12, 14], [16, 18]]
