"""Skips of a TOML file: their keys, and the slots that they leave out."""

from typing import Any

import pytest

from blendtitan.batch_schedule import BatchStage
from blendtitan.errors import ConfigError
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.settings.skips import placed_skips, skip_settings

FOURS = (BatchStage(global_batch_size=4),)


def test_both_ends_are_left_out_and_the_first_step_is_1() -> None:
    skips = skip_settings([{"from_step": 1, "to_step": 2}, {"from_slot": 10, "to_slot": 10}])

    assert placed_skips(skips, FOURS) == ((0, 8, 1, 2), (10, 11, None, None))


def test_steps_of_a_later_skip_are_those_of_a_run_with_the_earlier_ones() -> None:
    """Steps 3 and 4 were slots 8 to 15. Without them, step 5 begins at slot 24."""
    skips = skip_settings([{"from_step": 3, "to_step": 4}, {"from_step": 5, "to_step": 5}])

    assert [each[:2] for each in placed_skips(skips, FOURS)] == [(8, 16), (24, 28)]


def test_recorded_skips_keep_their_slots() -> None:
    """Since then, steps have another size."""
    changed = (*FOURS, BatchStage(step=2, consumed_samples=8, global_batch_size=6))
    recorded = placed_skips(skip_settings([{"from_step": 3, "to_step": 4}]), FOURS)
    skips = skip_settings([{"from_step": 3, "to_step": 4}, {"from_step": 3, "to_step": 3}])

    expected = (SkippedStretch(8, 16, 3, 4), SkippedStretch(16, 22, 3, 3))
    assert placed_skips(skips, changed, recorded) == expected


@pytest.mark.parametrize("num_recorded", range(3))
def test_the_same_steps_can_be_skipped_twice(num_recorded: int) -> None:
    """The loss may jump again at the step that replaced a skipped one. Neither gets lost.

    The checkpoint may have none of them, the first, or both.
    """
    twice = skip_settings(2 * [{"from_step": 3, "to_step": 4}])
    placed = placed_skips(twice, FOURS)

    assert placed == ((8, 16, 3, 4), (16, 24, 3, 4))
    assert placed_skips(twice, FOURS, placed[:num_recorded]) == placed


def test_overlapping_skips_leave_out_each_slot_of_any_of_them() -> None:
    """Without slots 8 to 15, step 3 begins at slot 16."""
    tables = [{"from_step": 3, "to_step": 4}, {"from_step": 2, "to_step": 3}]
    skips = skip_settings([*tables, {"from_slot": 18, "to_slot": 21}])

    assert skips_of(placed_skips(skips, FOURS)).stretches == [(4, 22)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "skip 1: found no key, expected from_step and to_step, or from_slot and to_slot"),
        ({"from_step": 1}, "found from_step, expected from_step and to_step"),
        ({"from_step": 1, "to_slot": 2}, "found from_step and to_slot, expected"),
        ({"from_step": 0, "to_step": 2}, "from_step is 0, expected a whole number of at least 1"),
        ({"from_slot": -1, "to_slot": 2}, "from_slot is -1, expected a whole number"),
        ({"from_slot": 5, "to_slot": 4}, "skip 1: to_slot is 4, expected at least from_slot, 5"),
        ({"from_step": 5, "until": 4}, r"unknown key until\. The keys are from_step"),
        ({"from_slot": 0, "to_slot": 10**15}, "skip 1 ends at slot 1,000,000,000,000,001"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        placed_skips(skip_settings([table]), FOURS)
