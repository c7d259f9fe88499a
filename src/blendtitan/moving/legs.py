"""The legs of a run: the stretches of steps between its starts, and what they read.

The original BlendCorpus did not save the position of its loader. Every leg of such a run read its
order from the first sample on, whatever step it began at.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from blendtitan.batch_schedule import BatchSchedule, BatchStage
from blendtitan.errors import ConfigError

_NUMBERS = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Leg:
    """The steps of a run from one start to the checkpoint from which the next leg began."""

    begin: int
    """Step of the checkpoint that it began from; 0: the start of the run."""
    end: int
    """Its last step that later legs build on."""

    @property
    def num_steps(self) -> int:
        """Number of its steps."""
        return self.end - self.begin

    def __str__(self) -> str:
        return f"{self.begin}-{self.end}"


def legs_of_numbers(words: Sequence[str]) -> tuple[Leg, ...]:
    """Legs given as ``BEGIN-END``, in order.

    Raises:
        ConfigError: A leg is malformed or empty, or does not begin where the one before it ended.
    """
    legs: list[Leg] = []
    for word in words:
        match = _NUMBERS.fullmatch(word)
        leg = Leg(*map(int, match.groups())) if match else None
        if leg is None or leg.num_steps < 1:
            raise ConfigError(
                f"the leg is {word!r}, expected a log file that exists, or the step it began at "
                f"and a larger one at which it ended, such as 0-1000"
            )
        _check_follows(leg, legs[-1] if legs else Leg(0, 0))
        legs.append(leg)
    return tuple(legs)


def _check_follows(leg: Leg, before: Leg) -> None:
    if leg.begin == before.end:
        return
    if before.end == 0:
        found, remedy = "is the first leg", "Also give the legs before it, from step 0 on"
    elif leg.begin < before.begin:
        found, remedy = f"follows {before}: they are out of order", "Give the legs in their order"
    elif leg.begin < before.end:
        found = f"overlaps {before}"
        remedy = (
            f"Steps {leg.begin + 1:,} to {before.end:,} of the earlier leg were undone when the "
            f"run went back to step {leg.begin:,}: give that leg as {before.begin}-{leg.begin}"
        )
    else:
        found, remedy = f"follows {before}: a leg between them is missing", "Give it as well"
    raise ConfigError(f"the leg {leg} {found}, expected it to begin at {before.end}. {remedy}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedLeg:
    """A leg as TorchTitan logged it."""

    log: str
    """Name of the log file."""
    begin: int
    last: int
    """The last step in the log; ``begin`` if it has none."""
    spacing: int = 1
    """The largest distance between two logged steps."""
    global_batch_size: int | None = None
    """None: the log does not say."""
    total_steps: int | None = None
    """None: the log does not say."""


_START = re.compile(r"Training starts at step (\d+)")
_STEP = re.compile(r"step:\s*(\d+)")
_RANK = re.compile(r"\s*\[\D*(\d+)\]:")  # of torchrun, before the lines of each process
_FACTS = {
    "global_batch_size": re.compile(r"global batch size (\d+)"),
    "total_steps": re.compile(r"total steps (\d+)"),
}


def logged_legs(log: str, lines: Iterable[str]) -> list[LoggedLeg]:
    """The legs in a log of TorchTitan. If several ranks logged, the first one's lines are read.

    Raises:
        ConfigError: A step is logged before the log says where its leg began.
    """
    legs: list[LoggedLeg] = []
    facts: dict[str, int] = {}
    for line in _of_first_rank(lines):
        facts |= {name: int(m[1]) for name, each in _FACTS.items() if (m := each.search(line))}
        step = _STEP.search(line)
        start = int(match[1]) if (match := _START.search(line)) else None
        if start is None and step and not (legs and int(step[1]) >= legs[-1].last):
            start = _unannounced(log, int(step[1]))
        if start is not None:
            legs.append(LoggedLeg(log=log, begin=start - 1, last=start - 1, **facts))
            facts = {}
        if step:
            legs[-1] = _reached(legs[-1], int(step[1]))
    return legs


def _of_first_rank(lines: Iterable[str]) -> Iterator[str]:
    """The lines about training of the rank that logs the first of them."""
    first: str | None = None
    for line in lines:
        if any(each.search(line) for each in (_START, _STEP, *_FACTS.values())):
            rank = match[1] if (match := _RANK.match(line)) else ""
            first = rank if first is None else first
            if rank == first:
                yield line


def _unannounced(log: str, step: int) -> int:
    """The first step of a leg whose start is not logged, but this step."""
    if step == 1:
        return step
    raise ConfigError(
        f"{log}: step {step:,} is logged, but no line 'Training starts at step' before it says "
        f"where its leg began. Give the whole log, or the steps as numbers, such as 0-1000."
    )


def _reached(leg: LoggedLeg, step: int) -> LoggedLeg:
    is_first = leg.last == leg.begin
    spacing = leg.spacing if is_first else max(leg.spacing, step - leg.last)
    return replace(leg, last=step, spacing=spacing)


class ResolvedLegs(NamedTuple):
    """Legs that follow one another."""

    legs: tuple[Leg, ...]
    undone: tuple[str, ...]
    """A sentence for each stretch of steps that a run undid by going back to a checkpoint."""


def resolved(logged: Sequence[LoggedLeg], *, end: int | None) -> ResolvedLegs:
    """The legs of logs in their order; ``end`` is the step of the checkpoint to continue from.

    A leg ends where the next one began. Later steps were undone, and steps that no log mentions
    belong to the leg if they are too few for TorchTitan to have logged one.

    Raises:
        ConfigError: The logs do not cover all steps, or are empty.
    """
    spacing = max((each.spacing for each in logged), default=1)
    legs: list[Leg] = []
    undone: list[str] = []
    for each in logged:
        _end_at(legs, each.begin, spacing, undone, before=f"the leg in {each.log}")
        legs.append(Leg(each.begin, each.last))
    if end is not None:
        _end_at(legs, end, spacing, undone, before="the checkpoint")
    legs = [leg for leg in legs if leg.num_steps]
    if not legs:
        raise ConfigError("the logs have no steps of training, expected lines with 'step: N'")
    return ResolvedLegs(tuple(legs), tuple(undone))


def _end_at(legs: list[Leg], step: int, spacing: int, undone: list[str], *, before: str) -> None:
    """Let the legs so far end at ``step``."""
    reached = legs[-1].end if legs else 0
    while legs and legs[-1].begin >= step:
        legs.pop()
    if step < reached:
        undone.append(f"Steps {step + 1:,} to {reached:,} were undone: {before} is at {step:,}.")
    if (step and not legs) or step - reached >= spacing:
        raise ConfigError(
            f"{before} is at step {step:,}, but the logs before it end at step {reached:,}. A log "
            f"is missing, or the logs are out of order: give all of them, in the order of the run."
        )
    if legs:
        legs[-1] = Leg(legs[-1].begin, step)


def check_started_alike(
    logged: Sequence[LoggedLeg], *, global_batch_size: int, num_samples: int
) -> None:
    """Check that all legs read one order: that of ``num_samples`` requested samples.

    Raises:
        ConfigError: A leg had another batch size, or another number of samples.
    """
    for each in logged:
        size = each.global_batch_size
        if size not in (None, global_batch_size):
            raise ConfigError(
                f"{each.log}: the leg from step {each.begin:,} on had a global batch size of "
                f"{size:,}, expected {global_batch_size:,}, training.global_batch_size. All legs "
                f"must have one, because the original's order depends on it."
            )
        if each.total_steps is not None and each.total_steps * global_batch_size != num_samples:
            raise ConfigError(
                f"{each.log}: the leg from step {each.begin:,} on was started for "
                f"{each.total_steps:,} steps of {global_batch_size:,} samples, expected "
                f"{num_samples:,} samples, from training.steps or blendcorpus.train_samples. The "
                f"original's order depends on this number. If all legs had the same, set "
                f"blendcorpus.train_samples to it."
            )


class Reads(NamedTuple):
    """A stretch of the order whose samples were read equally often."""

    slots: range
    times: int


def reads_of(legs: Sequence[Leg], *, global_batch_size: int, num_slots: int) -> list[Reads]:
    """How often the samples of an order of ``num_slots`` were read, by stretch, in its order.

    Raises:
        ConfigError: A leg is longer than the order.
    """
    for leg in legs:
        if leg.num_steps * global_batch_size > num_slots:
            raise ConfigError(
                f"the leg {leg} read {leg.num_steps:,} steps of {global_batch_size:,} samples, but "
                f"the original's order has only {num_slots:,} samples. Check the steps, and set "
                f"training.steps and training.global_batch_size, or blendcorpus.train_samples, to "
                f"those that the run was started with."
            )
    stops = [leg.num_steps * global_batch_size for leg in legs]
    return [
        Reads(range(start, stop), sum(each >= stop for each in stops))
        for start, stop in pairwise(sorted({0, *stops, num_slots}))
    ]


def first_unread(legs: Sequence[Leg], *, global_batch_size: int) -> int:
    """The slot from which on no leg has read."""
    return max(leg.num_steps for leg in legs) * global_batch_size


def schedule_of(legs: Sequence[Leg], *, global_batch_size: int) -> BatchSchedule:
    """The batch schedule of the run so far, which continues with the samples never read.

    Every leg began at slot 0, so each step has the slots that were really read in it.
    """
    unread = first_unread(legs, global_batch_size=global_batch_size)
    stages = [BatchStage(step=leg.begin, global_batch_size=global_batch_size) for leg in legs]
    end = legs[-1].end
    if stages[-1].consumed_at(end) == unread:
        return tuple(stages)
    last = BatchStage(step=end, consumed_samples=unread, global_batch_size=global_batch_size)
    return (*stages, last)
