"""The time that ranks wait for each other because their documents differ in length."""

from dataclasses import dataclass

import numpy as np

from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.interface import Dataset
from blendtitan.order.balance import balanced, duration, unbalanced
from blendtitan.runs.open import RunConfig
from blendtitan.settings.balance import check_balance
from blendtitan.settings.known_models import LINEAR
from blendtitan.visible import counted

_MOST_STEPS = 64
_USUAL_MODEL = ("llama3", "8B")


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The predicted waiting of the ranks of a run for the slowest one."""

    ranks: int
    micro_batches: int
    """Of each rank in a step."""
    micro_batch: int
    steps: int
    """Steps that were looked at, spread over the run."""
    model: str
    """Name and flavor of the model whose matrices and attention are compared."""
    before: float
    """Fraction of the time of an average rank, without balance."""
    after: float
    """The same with balance."""

    def __str__(self) -> str:
        return (
            f"{self.before:.1%} of the time without balance, {self.after:.1%} with it: "
            f"{counted(self.ranks, 'rank')}, {self.micro_batches:,} x "
            f"{counted(self.micro_batch, 'sample')} of each in a step, the computation of "
            f"{self.model}, {counted(self.steps, 'step')} of the run"
        )


def predicted_waiting(run: RunConfig, train: Dataset, *, ranks: int) -> Waiting:
    """Predict how long the ranks of a run wait, from the lengths of its documents.

    Raises:
        ConfigError: All rows of the run cost the same, or its order has no costs.
        ShardError: An ``.idx`` is missing or damaged.
    """
    check_balance(run.blend)
    assert isinstance(train, BlendedDataset)
    name, flavor = run.model["name"] or "", run.model["flavor"] or ""
    if flavor not in LINEAR.get(name, {}):
        name, flavor = _USUAL_MODEL
    shared, size = LINEAR[name][flavor] * run.blend.seq_length, run.global_batch_size
    lens = DocumentLens.read(train.rows)
    steps = np.unique(np.linspace(0, max(0, run.steps - 1), _MOST_STEPS).astype(np.int64))
    place = {"ranks": ranks, "micro_batch": run.micro_batch}
    plain, total, before, after = unbalanced(size, **place), 0, 0, 0
    for step in steps.tolist():
        slots = step * size + np.arange(size)
        costs = shared + attention_costs(train, slots, lens)
        total += int(costs.sum())
        before += duration(costs, plain)
        after += duration(costs, balanced(costs, **place))
    return Waiting(
        ranks=ranks,
        micro_batches=len(plain),
        micro_batch=run.micro_batch,
        steps=len(steps),
        model=f"{name} {flavor}",
        before=1 - total / (ranks * before),
        after=1 - total / (ranks * after),
    )
