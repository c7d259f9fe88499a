"""Rescue a run of the original BlendCorpus whose loader position was never saved.

Its legs tell how often each sample of its order was read. The run continues here with the samples
that none of them read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendtitan.batch_schedule import saved_schedule
from blendtitan.config import ORIGINAL_ORDER
from blendtitan.errors import ConfigError
from blendtitan.files import open_file
from blendtitan.moving.legs import (
    Leg,
    LoggedLeg,
    Reads,
    check_started_alike,
    first_unread,
    legs_of_numbers,
    logged_legs,
    reads_of,
    resolved,
    schedule_of,
)
from blendtitan.original.dataset import OriginalDataset
from blendtitan.runs.open import RunConfig, data_of_run, read_run
from blendtitan.state import encode_state
from blendtitan.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescue:
    """What the legs of a run read, and where it continues."""

    dataset: OriginalDataset
    legs: tuple[Leg, ...]
    undone: tuple[str, ...]
    reads: list[Reads]
    global_batch_size: int
    steps: int
    """The last step of the run, as configured."""

    @property
    def end(self) -> int:
        """The step after which the run continues."""
        return self.legs[-1].end

    @property
    def first_unread(self) -> int:
        """The slot with which the run continues."""
        return first_unread(self.legs, global_batch_size=self.global_batch_size)

    @property
    def last_step(self) -> int:
        """The last step for which the order has samples."""
        return self.end + (self.dataset.num_windows - self.first_unread) // self.global_batch_size

    def counts(self, slots: range) -> dict[str, int]:
        """Samples of each corpus in a stretch of the order."""
        before, until = map(self.dataset.draws_before, (slots.start, slots.stop))
        return dict(zip(self.dataset.corpora, (until - before).tolist(), strict=True))

    def state(self) -> dict[str, str]:
        """The state of a loader that has read what the run has.

        Raises:
            ConfigError: No sample is left for the next step.
        """
        if self.last_step <= self.end:
            raise ConfigError(
                f"{self.dataset.num_windows - self.first_unread:,} samples of the original's order "
                f"were never read, too few for a step of {self.global_batch_size:,}. Start a new "
                f"run in the default order from the weights of this one."
            )
        schedule = schedule_of(self.legs, global_batch_size=self.global_batch_size)
        return encode_state(self.dataset, self.first_unread, more=saved_schedule(schedule))

    def json(self) -> dict[str, Any]:
        """The rescue as JSON."""
        return {
            "legs": [
                {"begin": leg.begin, "end": leg.end, "samples": self._samples(leg)}
                for leg in self.legs
            ],
            "undone": list(self.undone),
            "reads": [
                {
                    "first_slot": reads.slots.start,
                    "samples": len(reads.slots),
                    "times": reads.times,
                    "corpora": self.counts(reads.slots),
                }
                for reads in self.reads
            ],
            "step": self.end,
            "consumed_samples": self.first_unread,
            "last_step": self.last_step,
        }

    def lines(self) -> Iterator[str | Table]:
        """The rescue in words."""
        yield Table(
            ("leg", "first step", "last step", "samples read"),
            [
                (f"{number}", leg.begin + 1, leg.end, self._samples(leg))
                for number, leg in enumerate(self.legs, start=1)
            ],
        )
        yield from self.undone
        yield ""
        headings = ("times read", "samples", "first slot", *self.dataset.corpora)
        yield Table(
            headings,
            [
                (f"{each.times}", len(each.slots), each.slots.start, *self._cells(each))
                for each in self.reads
            ],
        )
        yield ""
        yield (
            f"After step {self.end:,}, the run continues with slot {self.first_unread:,} of the "
            f"original's order, its first sample that was never read. (step * global_batch_size is "
            f"{self.end * self.global_batch_size:,}.) The order has unread samples up to step "
            f"{self.last_step:,}; training.steps is {self.steps:,}."
        )

    def _cells(self, reads: Reads) -> list[int]:
        return list(self.counts(reads.slots).values())

    def _samples(self, leg: Leg) -> int:
        return leg.num_steps * self.global_batch_size


def rescue(config: Path, legs: Sequence[str], *, end: int | None = None) -> Rescue:
    """What a run read in its legs.

    Args:
        config: TOML file of the run, in the original's order.
        legs: Log files of TorchTitan, or steps such as ``0-1000``; in the order of the run.
        end: Step of the checkpoint that the run continues from. None: the end of the last leg.

    Raises:
        ConfigError: The legs contradict each other, the order or the checkpoint.
    """
    run = read_run(config)
    dataset = _original(run)
    assert run.blend.train_samples is not None
    logs = [*map(Path, legs)]
    undone: tuple[str, ...] = ()
    if any(log.is_file() for log in logs):
        logged = [leg for log in logs for leg in _read_log(log)]
        check_started_alike(
            logged,
            global_batch_size=run.global_batch_size,
            num_samples=run.blend.train_samples,
        )
        parsed, undone = resolved(logged, end=end)
    else:
        parsed = legs_of_numbers(legs)
        _check_end(parsed[-1], end)
    return Rescue(
        dataset=dataset,
        legs=parsed,
        undone=undone,
        reads=reads_of(
            parsed, global_batch_size=run.global_batch_size, num_slots=dataset.num_windows
        ),
        global_batch_size=run.global_batch_size,
        steps=run.steps,
    )


def _original(run: RunConfig) -> OriginalDataset:
    if run.blend.order != ORIGINAL_ORDER:
        raise ConfigError(
            f"{run.path}: blendcorpus.order is {run.blend.order!r}, expected {ORIGINAL_ORDER!r}: "
            f"only runs of the original BlendCorpus are rescued. Runs of blendtitan resume by "
            f"themselves."
        )
    train = data_of_run(run).train
    assert isinstance(train, OriginalDataset)
    return train


def _read_log(log: Path) -> list[LoggedLeg]:
    with open_file(log) as file:
        found = logged_legs(str(log), (line.decode(errors="replace") for line in file))
    if not found:
        raise ConfigError(
            f"{log}: found no line with 'Training starts at step' or 'step: N', expected a log of "
            f"TorchTitan. If the log of another rank has them, give that one."
        )
    return found


def _check_end(last: Leg, end: int | None) -> None:
    if end not in (None, last.end):
        raise ConfigError(
            f"the last leg is {last}, but the checkpoint is that of step {end:,}. Steps after it "
            f"do not count: give the leg as {last.begin}-{end}."
        )
