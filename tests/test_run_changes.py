"""Planned changes of a run whose steps become smaller while replicas are missing."""

import pytest

from blendtitan import BlendedDataset, DataLoader, build_datasets
from blendtitan.batch_schedule import BatchStage, saved_schedule
from blendtitan.errors import ResumeError
from blendtitan.run_changes import RunChanges
from blendtitan.settings.batch_changes import batch_changes
from blendtitan.settings.segments import segment_settings
from tests.conftest import WriteBlend

CORPORA = {"web": (0.6, [900]), "code": (0.4, [450])}
FULL = BatchStage(global_batch_size=8)
HALF = [0, 4, 8, 12, 16, 22, 28, 34]
"""Samples after each step of half of the replicas: 4 of 8, and from the fifth step on 6 of 12."""


def changes_at(step: int, web: float = 3) -> RunChanges:
    shares = {"code": 1, "web": web}
    segments = segment_settings([{"from_step": step, "shares": shares}])
    batches = batch_changes([{"from_step": 4, "global_batch_size": 12}])
    return RunChanges(segments=segments, batches=batches, may_shrink=True)


def second_segment(loader: DataLoader) -> int:
    assert isinstance(loader.dataset, BlendedDataset)
    return loader.dataset.segments[1].first_slot


def of_half(write_blend: WriteBlend, steps: int) -> tuple[DataLoader, dict[str, str]]:
    """A loader after so many steps of half of the replicas, and its state."""
    loader = DataLoader(build_datasets(write_blend(CORPORA, seq_length=8, split="1")).train, 4)
    changes = changes_at(5)
    schedule = changes.begin(loader, (FULL,))
    assert second_segment(loader) == 4 * 8 + 12
    schedule = changes.scaled(loader, schedule, 0, size=8, scale=lambda size: size // 2)
    assert second_segment(loader) == 4 * 4 + 6
    loader.begin_at(HALF[steps])
    used = changes.used(schedule, loader.consumed_samples)
    return loader, loader.state_dict(more=saved_schedule(used))


@pytest.mark.parametrize("steps", [0, 1, 4, 5, 7])
def test_a_state_of_smaller_steps_is_resumed_by_any_number_of_replicas(
    write_blend: WriteBlend, steps: int
) -> None:
    """A planned segment of the state begins where the replicas that saved it would reach it."""
    before, state = of_half(write_blend, steps)
    after = DataLoader(build_datasets(before.dataset.config).train, 4)
    changes = changes_at(5)

    schedule = changes.resume(after, state, FULL)
    assert after.consumed_samples == HALF[steps]
    assert second_segment(after) == HALF[5]
    changes.scaled(after, schedule, steps, size=8, scale=lambda size: size)
    rest = [8, 8, 8, 8, 12][steps:]
    assert second_segment(after) == HALF[min(steps, 5)] + sum(rest)


def test_other_shares_are_still_refused(write_blend: WriteBlend) -> None:
    before, state = of_half(write_blend, 3)
    after = DataLoader(build_datasets(before.dataset.config).train, 4)

    with pytest.raises(ResumeError, match=r"segments\.1\.shares"):
        changes_at(5, web=7).resume(after, state, FULL)


def test_a_segment_that_has_begun_is_still_compared(write_blend: WriteBlend) -> None:
    before, state = of_half(write_blend, 7)
    after = DataLoader(build_datasets(before.dataset.config).train, 4)

    with pytest.raises(ResumeError, match=r"segments\.1\.first_slot: checkpoint 22, now 28"):
        changes_at(6).resume(after, state, FULL)
