"""The base of TorchTitan's data loaders of every version: steps, segments and saved state.

It imports no torchtitan.
"""

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from blendtitan.batch_schedule import (
    BatchSchedule,
    BatchStage,
    consumed_at,
    saved_schedule,
    stage_at,
)
from blendtitan.dataset.interface import Dataset
from blendtitan.loader import DataLoader
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.run_changes import RunChanges

logger = visible_logger(__name__)


class PlacedLoader:
    """Base of data loaders that resume exactly. ``place`` must be called when one is built."""

    def place(
        self, loader: DataLoader, changes: "RunChanges | None", *, global_batch_size: int
    ) -> None:
        """Begin at slot 0.

        Args:
            loader: Reads the batches.
            changes: Segments, skips and batch sizes of the run. None: it has none.
            global_batch_size: Samples of a step, until ``align`` is called.
        """
        self._loader = loader
        self._is_placed = False
        self._changes = changes
        self._begun_stage = BatchStage(global_batch_size=global_batch_size)
        self._schedule: BatchSchedule = ()
        if changes is not None:
            changes.begin(loader, (self._begun_stage,))

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
        schedule = [s for s in self._schedule if s.consumed_samples <= self.consumed_samples]
        if self._changes is not None:
            schedule = self._changes.used(self._schedule, self.consumed_samples)
        return self._loader.state_dict(more=saved_schedule(tuple(schedule)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        from blendtitan.run_changes import RunChanges

        self._changes = self._changes or RunChanges()
        self._schedule = self._changes.resume(self._loader, state_dict, self._begun_stage)
        self._is_placed = True

    def set_consumed_by_global_step(self, step: int, global_batch_size: int) -> None:
        """Move to the end of ``step`` optimizer steps of ``global_batch_size`` samples each.

        A checkpoint that is loaded afterwards and contains the loader's state overrides this.

        Raises:
            ConfigError: ``step`` is below 0 or ``global_batch_size`` below 1.
        """
        self._loader.set_consumed_by_global_step(step, global_batch_size)
        self._schedule = (BatchStage(global_batch_size=global_batch_size),)
        if self._changes is not None:
            self._schedule = self._changes.begin(self._loader, self._schedule)
            self._loader.begin_at(self.consumed_at(step))
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
                    *(step, self.consumed_samples // step, self.consumed_samples),
                )
            return
        from blendtitan.run_changes import RunChanges

        changes = self._changes or RunChanges()
        schedule = self._schedule or (BatchStage(global_batch_size=global_batch_size),)
        self._schedule = changes.align(
            self._loader, schedule, step, global_batch_size=global_batch_size
        )

    def samples_of_step(self, step: int) -> int:
        """Samples of a step, as planned now."""
        return stage_at(self._schedule, step - 1).global_batch_size

    def consumed_at(self, step: int) -> int:
        """Samples consumed after ``step`` steps of the run, as planned now."""
        if len(self._schedule) == 1:
            return step * self._schedule[0].global_batch_size
        return consumed_at(self._schedule, step)


def is_first_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return not dist.is_initialized() or dist.get_rank() == 0
