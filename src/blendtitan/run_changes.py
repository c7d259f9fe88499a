"""The planned changes of a run, segments and skips, and its batch schedule on resume.

Imported when a run has such changes, or when it resumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blendtitan.batch_schedule import (
    BatchSchedule,
    BatchStage,
    changed_at,
    schedule_of_state,
    stage_at,
    with_jumps,
)
from blendtitan.history.run import phases_of, skipped_of
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.loader import DataLoader
from blendtitan.placed_loader import is_first_rank
from blendtitan.settings.segments import SegmentSettings, changes_of, lengths_of, segment_settings
from blendtitan.settings.skips import SkipSettings, placed_skips, skip_settings
from blendtitan.state import SavedState, parse_state
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunChanges:
    """Changes of the shares during a run, and the slots that it leaves out."""

    segments: tuple[SegmentSettings, ...] = ()
    skips: tuple[SkipSettings, ...] = ()

    @classmethod
    def of(
        cls, segments: Sequence[Mapping[str, Any]], skips: Sequence[Mapping[str, Any]]
    ) -> "RunChanges":
        """The changes of a configuration, checked; see ``segment_settings``."""
        return cls(segment_settings(segments), skip_settings(skips))

    def begin(self, loader: DataLoader, schedule: BatchSchedule) -> BatchSchedule:
        """Plan the changes of a run of this schedule, and return the schedule with its jumps."""
        self.skip(loader, schedule, ())
        return self.plan(loader, schedule)

    def plan(self, loader: DataLoader, schedule: BatchSchedule) -> BatchSchedule:
        """The same in a run whose skips are placed already."""
        schedule = with_jumps(schedule, skips_of(skipped_of(loader.dataset)))
        self._set_segments(loader, schedule)
        return schedule

    def skip(
        self, loader: DataLoader, schedule: BatchSchedule, recorded: Sequence[SkippedStretch]
    ) -> None:
        """Let a loader leave out the skips; see ``placed_skips``."""
        if self.skips:
            loader.set_skips(placed_skips(self.skips, schedule, recorded))

    def resume(
        self, loader: DataLoader, state_dict: dict[str, Any], begun: BatchStage
    ) -> BatchSchedule:
        """Continue from a saved state, and return its schedule; ``begun`` if it has none.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        saved, schedule = parse_state(state_dict), schedule_of_state(state_dict)
        # Planned segments are compared as they were recorded; ``plan`` moves them afterwards.
        self._set_segments(loader, with_jumps(schedule or (begun,), saved.skips), saved)
        self.skip(loader, schedule or (begun,), saved.skipped)
        loader.resume(saved)
        return with_jumps(schedule, skips_of(skipped_of(loader.dataset)))

    def align(
        self, loader: DataLoader, schedule: BatchSchedule, step: int, *, global_batch_size: int
    ) -> BatchSchedule:
        """The schedule of a run that resumes after ``step`` steps; see ``PlacedLoader.align``."""
        before = stage_at(schedule, step)
        before.check(step, consumed_samples=loader.consumed_samples)
        changed = changed_at(schedule, step, global_batch_size=global_batch_size)
        if global_batch_size != before.global_batch_size and is_first_rank():
            logger.warning(
                "The global batch size was %d samples until step %d and is %d from now on. The "
                "data continues after the %d samples consumed so far.",
                *(before.global_batch_size, step, global_batch_size, loader.consumed_samples),
            )
        return self.plan(loader, changed)

    def _set_segments(
        self, loader: DataLoader, schedule: BatchSchedule, saved: SavedState | None = None
    ) -> None:
        """Place the segments in the present run, or in a run that resumes from a state."""
        if not self.segments:
            return
        dataset = loader.dataset
        phases, slot, skips = phases_of(dataset), 0, skips_of(skipped_of(dataset))
        if saved is not None:
            phases, slot, skips = saved.phases, saved.consumed_samples, saved.skips
        lengths = lengths_of(phases, slot=slot, seq_len=dataset.config.seq_length)
        loader.set_segments(changes_of(self.segments, schedule, lengths, skips))
