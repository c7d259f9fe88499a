"""``[[training.batch_schedule]]``: from tables to the batch schedule of a run."""

import re
from typing import Any

import pytest

from blendtitan.batch_schedule import BatchStage, begun, consumed_at
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.settings.batch_changes import batch_changes, continued, planned

SEQ_LEN = 10
GROWING = [
    {"from_step": 3, "global_batch_size": 8},
    {"from_tokens": 300, "global_batch_size": 16},
]


def stages(*entries: tuple[int, int, int]) -> tuple[BatchStage, ...]:
    return tuple(
        BatchStage(step=step, consumed_samples=consumed, global_batch_size=size)
        for step, consumed, size in entries
    )


def resumed(tables: list[dict[str, Any]], *, step: int) -> tuple[BatchStage, ...]:
    """The schedule of a run that was begun with ``GROWING`` and resumes with other tables."""
    whole = planned(4, batch_changes(GROWING), seq_len=SEQ_LEN)
    schedule = begun(whole, consumed_at(whole, step))
    lengths = [(0, SEQ_LEN)]
    return continued(schedule, batch_changes(tables), size=4, step=step, lengths=lengths)


def test_a_change_begins_after_its_steps_or_at_the_first_step_after_its_tokens() -> None:
    """300 tokens are 30 samples: 3 steps of 4, and 3 steps of 8, rounded up."""
    schedule = planned(4, batch_changes(GROWING), seq_len=SEQ_LEN)

    assert schedule == stages((0, 0, 4), (3, 12, 8), (6, 36, 16))


def test_a_change_at_step_0_replaces_the_global_batch_size() -> None:
    first = {"from_step": 0, "global_batch_size": 2}

    assert planned(4, batch_changes([first]), seq_len=SEQ_LEN) == stages((0, 0, 2))


@pytest.mark.parametrize("step", range(9))
def test_an_interrupted_run_has_the_schedule_of_an_uninterrupted_one(step: int) -> None:
    assert resumed(GROWING, step=step) == planned(4, batch_changes(GROWING), seq_len=SEQ_LEN)


def test_changes_after_the_checkpoint_may_be_edited() -> None:
    edited = [GROWING[0], {"from_step": 5, "global_batch_size": 4}]

    assert resumed(edited, step=5) == stages((0, 0, 4), (3, 12, 8), (5, 28, 4))
    assert resumed([], step=3) == stages((0, 0, 4))


@pytest.mark.parametrize("key", ["from_step", "global_batch_size"])
def test_changes_before_the_checkpoint_must_stay(key: str) -> None:
    edited = [{**GROWING[0], key: 2}]

    with pytest.raises(ResumeError, match=r"trained with 4 after step 0, 8 after step 3"):
        resumed(edited, step=4)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"from_step": 1}, "batch_schedule 1: global_batch_size is None"),
        ({"global_batch_size": 8}, "found neither from_step nor from_tokens"),
        ({"from_step": -1, "global_batch_size": 8}, "from_step is -1"),
        ({"from_stp": 1, "global_batch_size": 8}, "unknown key from_stp. Did you mean from_step?"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(table: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(error)):
        batch_changes([table])


def test_changes_must_be_in_order() -> None:
    with pytest.raises(ConfigError, match=r"2 begins after step 3, expected a step after 6"):
        planned(4, batch_changes([{**GROWING[0], "from_step": 6}, GROWING[0]]), seq_len=SEQ_LEN)


def test_a_size_must_be_whole_micro_batches() -> None:
    with pytest.raises(ConfigError, match=r"batch_schedule 1: .* is 8, expected a multiple of 6"):
        batch_changes(GROWING, local_batch_size=2, ranks=3)
