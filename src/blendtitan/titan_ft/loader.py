"""The data loader of one replica: who takes part in a step decides which slots it reads."""

from dataclasses import dataclass, replace
from typing import Any

from blendtitan.balance import costs_of
from blendtitan.batch_schedule import stage_at
from blendtitan.history.run import skipped_of
from blendtitan.history.skips import skips_of
from blendtitan.order.replicas import BatchPolicy, Costs, DividedStep, ReplicaCourse, step_of
from blendtitan.order.slots import Course
from blendtitan.placed_loader import PlacedLoader
from blendtitan.run_changes import RunChanges
from blendtitan.titan.balance import shared_lens
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan_ft.group import Place


class ReplicaDataLoader(BlendCorpusDataLoader):
    """The loader of a replica. Its state is that of the job, the same on every replica.

    ``consumed_samples`` is where the replica reads during a step, and otherwise the number of
    samples that are committed.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BlendCorpusDataLoader.Config):
        """``[blendcorpus]``, and the replicas of the job."""

        batch_policy: BatchPolicy = "same_batch"
        """Samples of a step while replicas are missing."""

        group_size: int = 1
        """Replicas of the job when none is missing."""

        def changes(self) -> RunChanges | None:
            """Segments, skips and batch sizes of the run, checked."""
            changes = BlendCorpusDataLoader.Config.changes(self)
            return changes and replace(changes, may_shrink=self.batch_policy == "smaller_batch")

    def __init__(self, config: Config, **parts: Any) -> None:
        super().__init__(config, **parts)
        self._policy: BatchPolicy = config.batch_policy
        self._group_size = config.group_size
        course = self._loader.course
        self._plain = Course(course.micro_batch, course.dp_rank, course.dp_world_size)
        self._costs: Costs | None = None
        self._committed: int | None = None
        """Samples committed before the present step. None: between steps."""
        self._planned_for: int | None = None
        """Replicas for which the sizes of the next steps are planned."""

    def align(self, step: int, *, global_batch_size: int) -> None:
        """See ``PlacedLoader.align``. Read the costs of rows, if steps are to be balanced."""
        PlacedLoader.align(self, step, global_batch_size=global_batch_size)
        self._planned_for = None
        if self._balance != "none":
            self._costs = costs_of(self._loader, shared_lens(self._loader))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint, or of another replica."""
        self._loader.replace(course=self._plain)
        super().load_state_dict(state_dict)
        self._planned_for = None

    def divide(self, step: int, place: Place) -> DividedStep:
        """The next step of the replicas that take part."""
        if self._policy == "smaller_batch" and place.num_replicas != self._planned_for:
            self._planned_for = place.num_replicas
            changes = self._changes or RunChanges()
            self._schedule = changes.scaled(
                self._loader,
                self._schedule,
                step - 1,
                size=self._begun_stage.global_batch_size,
                scale=lambda size: self._share_of(size, place),
            )
        return DividedStep(self.samples_of_step(step) // self._plain.stride, place.num_replicas)

    def begin_step(self, step: int, place: Place) -> None:
        """Read the part of ``place`` of the next step. What was prefetched for it is kept."""
        committed, present = self.consumed_samples, self._loader.course
        course = self._course(step, place)
        if not isinstance(present, ReplicaCourse) or not present.continues(course, committed):
            self._loader.replace(course=course)
        self._committed = committed
        self._loader.consumed_samples = course.position(committed)

    def end_steps(self, num_committed: int) -> None:
        """Continue after so many steps that are committed; 0: before the first of them."""
        course, end = self._loader.course, self._committed
        assert isinstance(course, ReplicaCourse)
        assert end is not None
        for _ in range(num_committed):
            end = course.end(end)
        self._loader.consumed_samples, self._committed = end, None

    def _share_of(self, size: int, place: Place) -> int:
        """Samples of the replicas that take part in a step that has ``size`` with all of them."""
        step = step_of(
            self._policy,
            full_units=size // self._plain.stride,
            all_replicas=self._group_size,
            num_replicas=place.num_replicas,
        )
        return step.num_units * self._plain.stride

    def _course(self, step: int, place: Place) -> ReplicaCourse:
        plain, skips = self._plain, skips_of(skipped_of(self.dataset))
        now = stage_at(self._schedule, step - 1)
        sizes = [(self.consumed_samples, now.global_batch_size)]
        sizes += [
            (s.consumed_samples, s.global_batch_size) for s in self._schedule if s.step >= step
        ]
        return ReplicaCourse(
            *(plain.micro_batch, plain.dp_rank, plain.dp_world_size),
            replica=place.replica,
            num_replicas=place.num_replicas,
            stages=tuple((skips.kept_before(begin), size) for begin, size in sizes),
            skips=skips,
            costs=self._costs,
        )
