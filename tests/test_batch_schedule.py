"""BatchSchedule: from steps to samples, and back."""

from blendtitan.batch_schedule import BatchStage, consumed_at, step_of


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
