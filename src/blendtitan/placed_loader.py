"""The base of TorchTitan's data loaders of every version: steps, segments and saved state.

It imports no torchtitan.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from blendtitan.batch_schedule import (
    BatchSchedule,
    BatchStage,
    begun,
    changed_at,
    consumed_at,
    saved_schedule,
    schedule_of_state,
    slots_of,
)
from blendtitan.dataset.interface import Dataset
from blendtitan.loader import DataLoader
from blendtitan.state import SavedState, parse_state
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.settings.segments import Lengths, SegmentSettings

logger = visible_logger(__name__)


class PlacedLoader:
    """Base of data loaders that resume exactly. ``place`` must be called when one is built."""

    def place(
        self,
        loader: DataLoader,
        *,
        segments: "Sequence[SegmentSettings]",
        global_batch_size: int,
        batch_schedule: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Begin at slot 0.

        Args:
            loader: Reads the batches.
            segments: Changes of the shares during the run.
            global_batch_size: Samples of a step, until ``align`` is called.
            batch_schedule: Tables that change ``global_batch_size`` during the run.
        """
        self._loader = loader
        self._is_placed = False
        self._schedule: BatchSchedule = ()
        self._segments = segments
        self._changes = batch_schedule
        self._size = global_batch_size
        self._set_segments()

    @property
    def dataset(self) -> Dataset:
        """The dataset of the loader."""
        return self._loader.dataset

    @property
    def consumed_samples(self) -> int:
        """Samples that all ranks together have received."""
        return self._loader.consumed_samples

    def consumed_at(self, step: int) -> int:
        """Samples consumed after ``step`` steps of the run, once ``align`` was called."""
        return consumed_at(self._schedule, step)

    def samples_of_step(self, step: int) -> int:
        """Samples of a step, once ``align`` was called."""
        return len(slots_of(self._schedule, step))

    def state_dict(self) -> dict[str, Any]:
        """The loader's state: one key, with the same value on every rank."""
        return self._loader.state_dict(more=saved_schedule(self._used()))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        saved = parse_state(state_dict)
        self._schedule = schedule_of_state(state_dict)
        if self._changes and self._schedule:
            step = self._schedule[-1].step_at(saved.consumed_samples)
            self._schedule = self._continued(self._schedule, step, self._size, saved)
        self._set_segments(saved)
        self._loader.resume(saved)
        self._is_placed = True

    def set_consumed_by_global_step(self, step: int, global_batch_size: int) -> None:
        """Move to the end of ``step`` optimizer steps of ``global_batch_size`` samples each.

        A checkpoint that is loaded afterwards and contains the loader's state overrides this.

        Raises:
            ConfigError: ``step`` is below 0 or ``global_batch_size`` below 1.
        """
        self._loader.set_consumed_by_global_step(step, global_batch_size)
        stage = BatchStage(global_batch_size=global_batch_size)
        self._schedule = self._continued((stage,), 0, global_batch_size)
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
            self._loader.consumed_samples = self.consumed_at(step)
            if step > 0 and is_first_rank():
                logger.warning(
                    "The checkpoint contains no data loader state. The data continues after step "
                    "%d x %d samples = %d samples.",
                    *(step, self.consumed_samples // step, self.consumed_samples),
                )
            return
        schedule = self._used() or (BatchStage(global_batch_size=global_batch_size),)
        schedule[-1].check(step, consumed_samples=self.consumed_samples)
        self._schedule = self._continued(schedule, step, global_batch_size)
        self._set_segments()
        before, now = schedule[-1].global_batch_size, self.samples_of_step(step + 1)
        if now != before and is_first_rank():
            logger.warning(
                "The global batch size was %d samples until step %d and is %d from now on. The "
                "data continues after the %d samples consumed so far.",
                *(before, step, now, self.consumed_samples),
            )

    def _used(self) -> BatchSchedule:
        return begun(self._schedule, self.consumed_samples) if self._changes else self._schedule

    def _continued(
        self, schedule: BatchSchedule, step: int, size: int, saved: SavedState | None = None
    ) -> BatchSchedule:
        """The schedule of the first ``step`` steps, and from there on the configured one."""
        if not self._changes:
            return changed_at(schedule, step, global_batch_size=size)
        from blendtitan.settings.batch_changes import batch_changes, continued

        changes, lengths = batch_changes(self._changes), self._lengths(saved)
        return continued(schedule, changes, size=size, step=step, lengths=lengths)

    def _set_segments(self, saved: SavedState | None = None) -> None:
        """Place the segments in the present run, or in a run that resumes from a state."""
        if not self._segments:
            return
        from blendtitan.settings.segments import changes_of

        schedule = self._schedule
        if not schedule:
            schedule = self._continued((BatchStage(global_batch_size=self._size),), 0, self._size)
        self._loader.set_segments(changes_of(self._segments, schedule, self._lengths(saved)))

    def _lengths(self, saved: SavedState | None) -> "Lengths":
        from blendtitan.history.run import phases_of
        from blendtitan.settings.segments import lengths_of

        phases, slot = phases_of(self.dataset), 0
        if saved is not None:
            phases, slot = saved.phases, saved.consumed_samples
        return lengths_of(phases, slot=slot, seq_len=self.dataset.config.seq_length)


def is_first_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return not dist.is_initialized() or dist.get_rank() == 0
