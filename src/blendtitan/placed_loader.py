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
    saved_schedule,
    schedule_of_state,
)
from blendtitan.dataset.interface import Dataset
from blendtitan.loader import DataLoader
from blendtitan.state import SavedState, parse_state
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.settings.segments import SegmentSettings

logger = visible_logger(__name__)


class PlacedLoader:
    """Base of data loaders that resume exactly. ``place`` must be called when one is built."""

    def place(
        self, loader: DataLoader, *, segments: "Sequence[SegmentSettings]", global_batch_size: int
    ) -> None:
        """Begin at slot 0.

        Args:
            loader: Reads the batches.
            segments: Changes of the shares during the run.
            global_batch_size: Samples of a step, until ``align`` is called.
        """
        self._loader = loader
        self._is_placed = False
        self._schedule: BatchSchedule = ()
        self._segments = segments
        self._begun_stage = BatchStage(global_batch_size=global_batch_size)
        self._set_segments()

    @property
    def dataset(self) -> Dataset:
        """The dataset of the loader."""
        return self._loader.dataset

    @property
    def consumed_samples(self) -> int:
        """Samples that all ranks together have received."""
        return self._loader.consumed_samples

    def state_dict(self) -> dict[str, Any]:
        """The loader's state: one key, with the same value on every rank."""
        return self._loader.state_dict(more=saved_schedule(self._schedule))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        saved = parse_state(state_dict)
        self._schedule = schedule_of_state(state_dict)
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
        self._schedule = (BatchStage(global_batch_size=global_batch_size),)
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
        schedule[-1].check(step, consumed_samples=self.consumed_samples)
        self._schedule = changed_at(schedule, step, global_batch_size=global_batch_size)
        self._set_segments()
        if self._schedule != schedule and is_first_rank():
            logger.warning(
                "The global batch size was %d samples until step %d and is %d from now on. The "
                "data continues after the %d samples consumed so far.",
                *(schedule[-1].global_batch_size, step, global_batch_size, self.consumed_samples),
            )

    def _set_segments(self, saved: SavedState | None = None) -> None:
        """Place the segments in the present run, or in a run that resumes from a state."""
        if not self._segments:
            return
        from blendtitan.history.run import phases_of
        from blendtitan.settings.segments import changes_of, lengths_of

        phases, slot = phases_of(self.dataset), 0
        if saved is not None:
            phases, slot = saved.phases, saved.consumed_samples
        lengths = lengths_of(phases, slot=slot, seq_len=self.dataset.config.seq_length)
        schedule = self._schedule or (self._begun_stage,)
        self._loader.set_segments(changes_of(self._segments, schedule, lengths))


def is_first_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return not dist.is_initialized() or dist.get_rank() == 0
