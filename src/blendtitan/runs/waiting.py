"""The time that ranks wait for each other because their documents differ in length."""

from dataclasses import dataclass

import numpy as np

from blendtitan.batch_schedule import BatchSchedule, size_changes, slots_of
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.order.balance import balanced, duration, unbalanced
from blendtitan.order.course import Skips
from blendtitan.runs.open import RunConfig
from blendtitan.runs.places import Ranks
from blendtitan.settings.balance import check_balance
from blendtitan.settings.known_models import MODELS
from blendtitan.visible import counted

_MOST_STEPS = 64
_USUAL_MODEL = ("llama3", "8B")


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The predicted waiting of the ranks of a run for the slowest one."""

    ranks: int
    micro_batches: tuple[int, ...]
    """Of each rank in a step; several if the batch schedule changes them, in its order."""
    micro_batch: int
    steps: int
    """Steps that were looked at, spread over the run."""
    model: str
    """Name and flavor of the model whose matrices and attention are compared."""
    before: float
    """Fraction of the time of an average rank, without balance."""
    after: float
    """The same with balance."""

    def sentence(self) -> str:
        """The prediction as a sentence."""
        return f"Ranks wait for the slowest one {self}."

    def __str__(self) -> str:
        batches = ", then ".join(f"{number:,}" for number in self.micro_batches)
        return (
            f"{self.before:.1%} of the time without balance, {self.after:.1%} with it: "
            f"{counted(self.ranks, 'rank')}, {batches} x "
            f"{counted(self.micro_batch, 'sample')} of each in a step, the computation of "
            f"{self.model}, {counted(self.steps, 'step')} of the run"
        )


def predicted_waiting(
    run: RunConfig, train: Dataset, *, ranks: int, schedule: BatchSchedule, skips: Skips
) -> Waiting:
    """Predict how long the ranks of a run wait, from the lengths of its documents.

    Raises:
        ConfigError: All rows of the run cost the same, its order has no costs, or a step cannot be
            divided among the ranks.
        ShardError: An ``.idx`` is missing or damaged.
    """
    check_balance(run.blend, otherwise="leave out --balance")
    assert isinstance(train, BlendedDataset)
    name, flavor = run.model["name"] or "", run.model["flavor"] or ""
    if flavor not in MODELS.get(name, {}):
        name, flavor = _USUAL_MODEL
    sizes = [size for _, size in size_changes(schedule, max(1, run.steps))]
    for size in sizes:
        Ranks(ranks, run.micro_batch).check(size)
    shared = MODELS[name][flavor].linear_cost * run.blend.seq_length
    lens = DocumentLens.read(train.rows)
    steps = np.unique(np.linspace(0, max(0, run.steps - 1), _MOST_STEPS).astype(np.int64))
    place = {"ranks": ranks, "micro_batch": run.micro_batch}
    total = before = after = 0
    for step in steps.tolist():
        slots = np.array(slots_of(schedule, step + 1, skips), np.int64)
        costs = shared + attention_costs(train, slots, lens)
        total += int(costs.sum())
        before += duration(costs, unbalanced(len(slots), **place))
        after += duration(costs, balanced(costs, **place))
    return Waiting(
        ranks=ranks,
        micro_batches=tuple(size // (ranks * run.micro_batch) for size in sizes),
        micro_batch=run.micro_batch,
        steps=len(steps),
        model=f"{name} {flavor}",
        before=1 - total / (ranks * before),
        after=1 - total / (ranks * after),
    )
