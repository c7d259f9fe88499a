"""The data loader of one replica: who takes part in a step decides which slots it reads."""

from dataclasses import dataclass

from blendtitan.batch_schedule import changed_at
from blendtitan.errors import ConfigError
from blendtitan.order.replicas import DividedStep, ReplicaCourse
from blendtitan.order.slots import Course
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan_ft.group import Place


class ReplicaDataLoader(BlendCorpusDataLoader):
    """The loader of a replica. Its state is that of the job, the same on every replica.

    ``consumed_samples`` is where the replica reads during a step, and otherwise the number of
    samples that are committed.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BlendCorpusDataLoader.Config):
        """``[blendcorpus]``."""

    def begin_step(self, place: Place, step: DividedStep, *, unit: int) -> None:
        """Read the part of ``place`` of the next step. What was prefetched for it is kept.

        Args:
            place: The place of this replica.
            step: How the step is divided.
            unit: Samples of a unit.

        Raises:
            ConfigError: The run leaves slots out, or divides its steps in another way.
        """
        committed, present = self.consumed_samples, self._loader.course
        if type(present) not in (Course, ReplicaCourse):
            raise ConfigError(
                "blendcorpus.skip and other changes of the slots that a run reads cannot be "
                "combined with fault_tolerance.enable = true. Train such a stretch without it."
            )
        course = ReplicaCourse(
            present.micro_batch,
            present.dp_rank,
            present.dp_world_size,
            committed,
            step,
            place.replica,
            unit // present.stride,
        )
        if not isinstance(present, ReplicaCourse) or not present.continues(course, committed):
            self._loader.replace(course=course)
        self._loader.consumed_samples = course.position(committed)

    def end_step(self, consumed_samples: int) -> None:
        """Continue after ``consumed_samples``: before the step if it was not committed."""
        self._loader.consumed_samples = consumed_samples

    def note_step(self, step: int, *, num_samples: int) -> None:
        """Note the number of samples of a step, which is to be committed, in the batch schedule."""
        schedule = changed_at(self._schedule, step - 1, global_batch_size=num_samples)
        if schedule != self._schedule:
            self._schedule = schedule
            if self._changes is not None:
                self._schedule = self._changes.plan(self._loader, schedule)
