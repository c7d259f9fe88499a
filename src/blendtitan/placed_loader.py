"""The base of TorchTitan's data loaders of every version: steps, segments and saved state.

It imports no torchtitan.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from blendtitan.batch_schedule import (
    BatchSchedule,
    BatchStage,
    changed_at,
    consumed_at,
    saved_schedule,
    schedule_of_state,
    stage_at,
    with_jumps,
)
from blendtitan.dataset.interface import Dataset
from blendtitan.loader import DataLoader
from blendtitan.state import SavedState, parse_state
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.history.skips import SkippedStretch
    from blendtitan.settings.segments import SegmentSettings
    from blendtitan.settings.skips import SkipSettings

logger = visible_logger(__name__)


class PlacedLoader:
    """Base of data loaders that resume exactly. ``place`` must be called when one is built."""

    def place(
        self,
        loader: DataLoader,
        *,
        segments: "Sequence[SegmentSettings]",
        skips: "Sequence[SkipSettings]" = (),
        global_batch_size: int,
    ) -> None:
        """Begin at slot 0.

        Args:
            loader: Reads the batches.
            segments: Changes of the shares during the run.
            skips: Steps or slots to leave out.
            global_batch_size: Samples of a step, until ``align`` is called.
        """
        self._loader = loader
        self._is_placed = False
        self._segments = segments
        self._skips = skips
        self._begun_stage = BatchStage(global_batch_size=global_batch_size)
        self._schedule: BatchSchedule = ()
        self._skipping((self._begun_stage,), ())
        self._set_segments()

    @property
    def dataset(self) -> Dataset:
        """The dataset of the loader."""
        return self._loader.dataset

    @property
    def consumed_samples(self) -> int:
        """Samples that all ranks together have received."""
        return self._loader.consumed_samples

    @property
    def samples_read(self) -> int:
        """The same without skipped slots."""
        return self.dataset.samples_before(self.consumed_samples)

    def state_dict(self) -> dict[str, Any]:
        """The loader's state: one key, with the same value on every rank."""
        begun = [s for s in self._schedule if s.consumed_samples <= self.consumed_samples]
        return self._loader.state_dict(more=saved_schedule(tuple(begun)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        saved = parse_state(state_dict)
        schedule = schedule_of_state(state_dict)
        self._schedule = with_jumps(schedule, saved.skips)
        self._set_segments(saved)
        self._schedule = self._skipping(schedule, saved.skipped)
        self._loader.resume(saved)
        self._is_placed = True

    def set_consumed_by_global_step(self, step: int, global_batch_size: int) -> None:
        """Move to the end of ``step`` optimizer steps of ``global_batch_size`` samples each.

        A checkpoint that is loaded afterwards and contains the loader's state overrides this.

        Raises:
            ConfigError: ``step`` is below 0 or ``global_batch_size`` below 1.
        """
        self._loader.set_consumed_by_global_step(step, global_batch_size)
        self._schedule = self._skipping((BatchStage(global_batch_size=global_batch_size),), ())
        self._loader.consumed_samples = self.consumed_at(step)
        self._set_segments()
        self._is_placed = True

    def align(self, step: int, *, global_batch_size: int) -> None:
        """Align the loader with the trainer's step, before its first batch.

        A loader that was moved, by a state or manually, must be at the end of this step; with a new
        global batch size, it continues from there. A loader that was not moved moves to ``step *
        global_batch_size``.

        Raises:
            ResumeError: The loader's position is that of another step.
        """
        if not self._is_placed:
            self.set_consumed_by_global_step(step, global_batch_size)
            if step > 0 and is_first_rank():
                logger.warning(
                    "The checkpoint contains no data loader state. The data continues after step "
                    "%d x %d samples = %d samples.",
                    *(step, global_batch_size, self.consumed_samples),
                )
            return
        schedule = self._schedule or (BatchStage(global_batch_size=global_batch_size),)
        before = stage_at(schedule, step)
        before.check(step, consumed_samples=self.consumed_samples)
        schedule = changed_at(schedule, step, global_batch_size=global_batch_size)
        self._schedule = self._skipping(schedule)
        self._set_segments()
        if global_batch_size != before.global_batch_size and is_first_rank():
            logger.warning(
                "The global batch size was %d samples until step %d and is %d from now on. The "
                "data continues after the %d samples consumed so far.",
                *(before.global_batch_size, step, global_batch_size, self.consumed_samples),
            )

    def consumed_at(self, step: int) -> int:
        """Samples consumed after ``step`` steps of the run, as planned now."""
        if len(self._schedule) == 1:
            return step * self._schedule[0].global_batch_size
        return consumed_at(self._schedule, step)

    def _skipping(
        self, schedule: BatchSchedule, recorded: "Sequence[SkippedStretch] | None" = None
    ) -> BatchSchedule:
        """The schedule with its jumps over skipped slots; see ``leave_out``."""
        if not self._skips:
            return schedule
        from blendtitan.settings.skips import leave_out

        return leave_out(self._loader, self._skips, schedule, recorded)

    def _set_segments(self, saved: SavedState | None = None) -> None:
        """Place the segments in the present run, or in a run that resumes from a state."""
        if not self._segments:
            return
        from blendtitan.history.run import phases_of, skipped_of
        from blendtitan.history.skips import skips_of
        from blendtitan.settings.segments import changes_of, lengths_of

        phases, slot, skips = phases_of(self.dataset), 0, skips_of(skipped_of(self.dataset))
        if saved is not None:
            phases, slot, skips = saved.phases, saved.consumed_samples, saved.skips
        lengths = lengths_of(phases, slot=slot, seq_len=self.dataset.config.seq_length)
        schedule = self._schedule or with_jumps((self._begun_stage,), skips)
        self._loader.set_segments(changes_of(self._segments, schedule, lengths, skips))


def is_first_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return not dist.is_initialized() or dist.get_rank() == 0
