"""Balanced steps: a loader whose ranks get rows of similar cost at the same time.

The rows of an optimizer step stay the same, and so does the sum of their gradients. Only the rank
and the micro batch of each row change, and every rank computes them by itself.
"""

from collections.abc import Callable, Sequence

from blendtitan.config import MAX_SLOT, check_at_least
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.loader import DataLoader
from blendtitan.order.balance import balanced
from blendtitan.order.course import NO_SKIPS, ChangedCourse, Skips, Step, changed
from blendtitan.order.slots import Course, IntArray
from blendtitan.settings.balance import check_balance


def balance_steps(
    loader: DataLoader,
    *,
    batches_per_step: int,
    later: Sequence[tuple[int, int]] = (),
    lens: DocumentLens | None = None,
) -> None:
    """Balance each optimizer step from the loader's current position on, the start of a step.

    Args:
        loader: An endless loader, without a finite number of samples.
        batches_per_step: Batches that each rank reads in one step.
        later: Other numbers of batches in later steps: ``(consumed_samples, batches_per_step)``,
            each from the start of a step on, in order.
        lens: The lengths of all documents of the split. None: read every ``.idx`` now.

    Raises:
        ConfigError: The loader cannot be balanced.
        ShardError: An ``.idx`` is missing or damaged.
    """
    check_at_least("batches_per_step", batches_per_step, 1)
    dataset = balanceable(loader.dataset)
    if loader.is_past_end(MAX_SLOT):
        raise ConfigError("a loader with num_samples cannot be balanced: expected an endless one")
    known = DocumentLens.read(dataset.rows) if lens is None else lens
    stages = [(loader.consumed_samples, batches_per_step), *later]

    def step_at(consumed_samples: int) -> Step:
        skips = skips_of(loader.course)
        kept = skips.kept_before(consumed_samples)
        begun = [(skips.kept_before(begin), batches) for begin, batches in stages]
        # Steps before the first stage have its size: a loader may return to an earlier state.
        first, batches = next((each for each in reversed(begun) if each[0] <= kept), begun[0])
        size = loader.course.stride * batches
        start = first + (kept - first) // size * size
        if start < 0:
            raise ResumeError(
                f"steps are balanced from {begun[0][0]:,} samples on, in steps of {size:,}, which "
                f"the position {consumed_samples:,} does not fit. Balance the steps after loading "
                f"the state."
            )
        return Step(skips.slot_of(start), size)

    costs_at = costs_of(loader, known)

    def deal(slots: IntArray) -> IntArray:
        course, costs = loader.course, costs_at(slots)
        return slots[balanced(costs, ranks=course.dp_world_size, micro_batch=course.micro_batch)]

    loader.replace(course=changed(loader.course, deal=deal, step_at=step_at))


def costs_of(loader: DataLoader, lens: DocumentLens) -> Callable[[IntArray], IntArray]:
    """A function that returns the costs of the rows of some slots, of the shape ``(n,)``."""
    # A state that is loaded replaces the dataset.
    return lambda slots: attention_costs(balanceable(loader.dataset), slots, lens)


def skips_of(course: Course) -> Skips:
    """The slots that a course leaves out."""
    return course.skips if isinstance(course, ChangedCourse) else NO_SKIPS


def balanceable(dataset: Dataset) -> BlendedDataset:
    """The dataset, if the costs of its rows are known.

    Raises:
        ConfigError: They are not.
    """
    check_balance(dataset.config)
    assert isinstance(dataset, BlendedDataset)
    return dataset
