"""BatchSchedule: from steps to samples, and back."""

from hypothesis import given
from hypothesis import strategies as st

from blendtitan.batch_schedule import (
    BatchStage,
    consumed_at,
    samples_of,
    slots_of,
    step_of,
    steps_before,
    with_jumps,
)
from blendtitan.order.course import Skips


def test_the_step_of_a_slot_is_the_one_that_consumes_it() -> None:
    """Also where the global batch size changed, to a larger one and back."""
    schedule = (
        BatchStage(global_batch_size=4),
        BatchStage(step=3, consumed_samples=12, global_batch_size=6),
        BatchStage(step=5, consumed_samples=24, global_batch_size=4),
    )
    for step in range(1, 12):
        for slot in range(consumed_at(schedule, step - 1), consumed_at(schedule, step)):
            assert step_of(schedule, slot) == step


skipped = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 30)).map(lambda each: (each[0], sum(each))),
    max_size=4,
)


@given(skipped, st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), max_size=3))
def test_steps_of_a_run_that_skips_slots_take_the_slots_that_are_left(
    stretches: list[tuple[int, int]], changes: list[tuple[int, int]]
) -> None:
    """Counted out one by one. Skips begin and end anywhere, and the batch size changes."""
    schedule, last = [BatchStage(global_batch_size=4)], 0
    for steps, size in changes:
        last += steps
        consumed = schedule[-1].consumed_at(last)
        schedule.append(BatchStage(step=last, consumed_samples=consumed, global_batch_size=size))
    skips = Skips.of(stretches)
    jumping = with_jumps(schedule, skips)
    left = iter([slot for slot in range(600) if not skips.holds(slot)])

    assert with_jumps(jumping, skips) == jumping
    following = next(left)
    for step in range(1, 25):
        assert consumed_at(jumping, step - 1) == following
        size = [s.global_batch_size for s in schedule if s.step < step][-1]
        slots = [following, *(next(left) for _ in range(size - 1))]
        assert list(slots_of(jumping, step, skips)) == slots
        assert {step_of(jumping, slot, skips) for slot in slots} == {step}
        assert steps_before(jumping, slots[0], skips) == step - 1
        assert samples_of(jumping, step) == skips.kept_before(slots[-1] + 1)
        following = next(left)
