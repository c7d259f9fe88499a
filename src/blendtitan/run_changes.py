"""The planned changes of a run, segments, skips and batch sizes, and its schedule on resume.

Imported when a run has such changes, or when it resumes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blendtitan.batch_schedule import (
    BatchSchedule,
    BatchStage,
    begun,
    changed_at,
    schedule_of_state,
    stage_at,
    with_jumps,
)
from blendtitan.history.run import phases_of, skipped_of
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.loader import DataLoader
from blendtitan.order.blend import Segment
from blendtitan.placed_loader import is_first_rank
from blendtitan.settings.batch_changes import (
    BatchChange,
    batch_changes,
    check_combination,
    continued,
)
from blendtitan.settings.segments import (
    Lengths,
    SegmentSettings,
    changes_of,
    lengths_of,
    segment_settings,
)
from blendtitan.settings.skips import SkipSettings, placed_skips, skip_settings
from blendtitan.state import SavedState, parse_state
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunChanges:
    """Changes of the shares during a run, and the slots that it leaves out."""

    segments: tuple[SegmentSettings, ...] = ()
    skips: tuple[SkipSettings, ...] = ()
    batches: tuple[BatchChange, ...] = ()
    may_shrink: bool = False
    """Whether past steps may have been smaller than configured; see ``continued``."""

    @classmethod
    def of(
        cls,
        segments: Sequence[Mapping[str, Any]],
        skips: Sequence[Mapping[str, Any]],
        batches: Sequence[Mapping[str, Any]] = (),
    ) -> "RunChanges":
        """The changes of a configuration, checked; see ``segment_settings``."""
        check_combination(batches, has_skips=bool(skips))
        return cls(segment_settings(segments), skip_settings(skips), batch_changes(batches))

    def begin(self, loader: DataLoader, schedule: BatchSchedule) -> BatchSchedule:
        """Plan the changes of a run of this schedule, and return the schedule with its jumps."""
        schedule = self._sized(loader, schedule, 0, schedule[0].global_batch_size)
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
        self, loader: DataLoader, state_dict: dict[str, Any], first: BatchStage
    ) -> BatchSchedule:
        """Continue from a saved state, and return its schedule; it may have none.

        Raises:
            ResumeError: The state belongs to other data, or to another configuration.
        """
        saved, schedule = parse_state(state_dict), schedule_of_state(state_dict)
        step = schedule[-1].step_at(saved.consumed_samples) if schedule else 0
        size = first.global_batch_size
        planned = self._sized(loader, schedule or (first,), step, size, saved)
        # Planned segments are compared as they were recorded; ``plan`` moves them afterwards.
        self._set_segments(loader, with_jumps(planned, saved.skips), saved)
        self.skip(loader, planned, saved.skipped)
        loader.resume(saved)
        return with_jumps(planned, skips_of(skipped_of(loader.dataset))) if schedule else ()

    def align(
        self, loader: DataLoader, schedule: BatchSchedule, step: int, *, global_batch_size: int
    ) -> BatchSchedule:
        """The schedule of a run that resumes after ``step`` steps; see ``PlacedLoader.align``."""
        if self.batches:
            schedule = begun(schedule, loader.consumed_samples)
        before = stage_at(schedule, step)
        before.check(step, consumed_samples=loader.consumed_samples)
        if self.batches:
            changed = self._sized(loader, schedule, step, global_batch_size)
        else:
            changed = changed_at(schedule, step, global_batch_size=global_batch_size)
        now = stage_at(changed, step).global_batch_size
        if now != before.global_batch_size and is_first_rank():
            logger.warning(
                "The global batch size was %d samples until step %d and is %d from now on. The "
                "data continues after the %d samples consumed so far.",
                *(before.global_batch_size, step, now, loader.consumed_samples),
            )
        return self.plan(loader, changed)

    def scaled(
        self,
        loader: DataLoader,
        schedule: BatchSchedule,
        step: int,
        *,
        size: int,
        scale: Callable[[int], int],
    ) -> BatchSchedule:
        """The schedule of a run whose steps have other sizes than configured from now on.

        Args:
            loader: At the end of ``step`` steps.
            schedule: The schedule so far.
            step: Steps made so far.
            size: The configured size before the first change.
            scale: Returns the size of a step from its configured size.
        """
        used = begun(schedule, loader.consumed_samples)
        sizes = ((each, scale(each.global_batch_size)) for each in self.batches)
        batches = [replace(each, global_batch_size=samples) for each, samples in sizes]
        lengths = _lengths(loader, None)
        schedule = continued(
            used, batches, size=scale(size), step=step, lengths=lengths, may_shrink=True
        )
        return self.plan(loader, schedule)

    def _set_segments(
        self, loader: DataLoader, schedule: BatchSchedule, saved: SavedState | None = None
    ) -> None:
        """Place the segments in the present run, or in a run that resumes from a state."""
        if not self.segments:
            return
        skips = skips_of(skipped_of(loader.dataset)) if saved is None else saved.skips
        lengths = _lengths(loader, saved)
        changes = changes_of(self.segments, schedule, lengths, skips)
        if saved is not None and self.may_shrink:
            changes = _as_planned(changes, saved)
        loader.set_segments(changes)

    def used(self, schedule: BatchSchedule, consumed_samples: int) -> BatchSchedule:
        """The part of a schedule that a run has used after so many samples; see ``begun``."""
        if self.batches and schedule:
            return begun(schedule, consumed_samples)
        return tuple(s for s in schedule if s.consumed_samples <= consumed_samples)

    def _sized(
        self,
        loader: DataLoader,
        schedule: BatchSchedule,
        step: int,
        size: int,
        saved: SavedState | None = None,
    ) -> BatchSchedule:
        """The schedule of the first ``step`` steps, and from there on the configured one."""
        if not self.batches:
            return schedule
        lengths = _lengths(loader, saved)
        return continued(
            *(schedule, self.batches),
            size=size,
            step=step,
            lengths=lengths,
            may_shrink=self.may_shrink,
        )


def _as_planned(changes: list[Segment], saved: SavedState) -> list[Segment]:
    """The changes, with future ones where a state has them planned.

    Their slots depend on the sizes of steps, planned for the replicas that took part at the save.
    """
    recorded = saved.phases[-1].segments[1:] if saved.phases else ()
    begins = [s.first_slot for s in recorded if s.first_slot >= saved.consumed_samples]
    future = [change for change in changes if change.first_slot >= saved.consumed_samples]
    if len(begins) != len(future):
        return changes
    moved = [replace(each, first_slot=slot) for each, slot in zip(future, begins, strict=True)]
    return [*changes[: len(changes) - len(moved)], *moved]


def _lengths(loader: DataLoader, saved: SavedState | None) -> Lengths:
    phases, slot = phases_of(loader.dataset), 0
    if saved is not None:
        phases, slot = saved.phases, saved.consumed_samples
    return lengths_of(phases, slot=slot, seq_len=loader.dataset.config.seq_length)
