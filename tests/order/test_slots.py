"""Ranks: consecutive slots, the same set on any number of ranks."""

import pytest

from blendtitan.errors import ConfigError
from blendtitan.order.slots import Course


def slots_of_step(step: int, global_batch: int, micro_batch: int, dp_world_size: int) -> list[int]:
    consumed, slots = step * global_batch, []
    while consumed < (step + 1) * global_batch:
        courses = [Course(micro_batch, dp_rank, dp_world_size) for dp_rank in range(dp_world_size)]
        slots += [slot for course in courses for slot in course.slots(consumed)[0].tolist()]
        consumed = courses[0].after(consumed)
    return slots


@pytest.mark.parametrize("dp_world_size", [1, 2, 3, 4, 6, 12])
def test_a_step_reads_the_same_samples_on_any_number_of_ranks(dp_world_size: int) -> None:
    """Changing the number of ranks moves samples between ranks, never between steps."""
    seen = slots_of_step(7, global_batch=24, micro_batch=2, dp_world_size=dp_world_size)

    assert sorted(seen) == list(range(168, 192))


@pytest.mark.parametrize("dp_rank", [-1, 2])
def test_a_rank_outside_the_world_is_refused(dp_rank: int) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        Course(micro_batch=1, dp_rank=dp_rank, dp_world_size=2)
