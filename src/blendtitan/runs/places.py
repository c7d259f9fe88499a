"""The step, rank and micro batch of the samples of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.batch_schedule import step_of
from blendtitan.errors import ConfigError
from blendtitan.order.balance import balanced, unbalanced
from blendtitan.runs.contents import Contents
from blendtitan.runs.open import OpenRun
from blendtitan.runs.slots import Stretch, Window, step_slots

IntArray = NDArray[np.int64]

PLACE_HEADINGS = ("step", "sample", "rank", "micro batch", "row")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The division of a step among the ranks."""

    number: int
    micro_batch: int
    """Samples that one rank reads at once."""

    def check(self, num_samples: int) -> None:
        """Check that a step of so many samples can be divided among the ranks."""
        stride = self.number * self.micro_batch
        if num_samples % stride:
            raise ConfigError(
                f"a step has {num_samples:,} samples, expected a multiple of {stride:,}: "
                f"{self.number:,} ranks of {self.micro_batch:,} samples at once"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The step, rank and micro batch of a sample. Counts start at 0, steps at 1."""

    step: int | None = None
    """None: the number of samples in a step is unknown, or the slot is skipped."""
    sample: int | None = None
    """Place in the global batch."""
    rank: int | None = None
    """None, like the fields below: the number of ranks is unknown."""
    micro_batch: int | None = None
    """Number of the micro batch within the step."""
    row: int | None = None
    """Place in the rank's micro batch."""

    def __str__(self) -> str:
        named = zip(PLACE_HEADINGS, astuple(self), strict=True)
        return ", ".join(f"{name} {number:,}" for name, number in named if number is not None)


def places_of(run: OpenRun, slots: Sequence[int], ranks: Ranks | None) -> Iterator[Place]:
    """The places of some slots in their steps, balanced if the configuration says so.

    Raises:
        ConfigError: A step cannot be divided among so many ranks, or is balanced by documents that
            are not there.
        ShardError: An ``.idx`` is damaged.
    """
    known, deals = run.slots, dict[int, IntArray]()
    for slot in slots:
        if not known.schedule or known.skips.holds(slot):
            yield Place()
            continue
        step = step_of(known.schedule, slot, known.skips)
        of_step = step_slots(known, step)
        sample = known.skips.kept_before(slot) - known.skips.kept_before(of_step[0])
        if ranks is None:
            yield Place(step=step, sample=sample)
            continue
        if step not in deals:
            deals[step] = _deal(run, of_step, ranks)
        micro_batch, rank, row = np.argwhere(deals[step] == sample)[0].tolist()
        yield Place(step=step, sample=sample, rank=rank, micro_batch=micro_batch, row=row)


def _deal(run: OpenRun, slots: Sequence[int], ranks: Ranks) -> IntArray:
    """The sample of a step at each place of a micro batch of a rank; see ``order/balance.py``."""
    ranks.check(len(slots))
    sizes = {"ranks": ranks.number, "micro_batch": ranks.micro_batch}
    if run.config is None or run.config.balance == "none" or ranks.number == 1:
        return unbalanced(len(slots), **sizes)
    if run.contents is None:
        raise ConfigError(
            f"steps are balanced, so ranks depend on the lengths of documents, and the data is not "
            f"available: {run.about}"
        )
    windows = run.slots.windows(np.array(slots, np.int64))
    return balanced(np.array([_cost(run.contents, each) for each in windows]), **sizes)


def _cost(contents: Contents, window: Window) -> int:
    """The cost of a row, as ``attention_costs`` has it: the last token is only a label."""
    cost, left = 0, sum(stretch.count for stretch in window.stretches) - 1
    for stretch in window.stretches:
        contents.check_holds(stretch, window.slot)
        inputs = Stretch(stretch.key, stretch.offset, min(stretch.count, left))
        left -= inputs.count
        if inputs.count:
            cost += sum(part.count**2 for part in contents.documents(inputs))
    return cost
