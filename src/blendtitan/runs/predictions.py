"""Predictions about the ranks and nodes of a run, which its plan shows on request."""

from collections.abc import Mapping
from dataclasses import dataclass

from blendtitan.dataset.interface import Dataset
from blendtitan.history.skips import skips_of
from blendtitan.runs.open import RunConfig
from blendtitan.runs.staged_reads import StagedReads, predicted_reads
from blendtitan.runs.waiting import Waiting, predicted_waiting

Prediction = Waiting | StagedReads


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to be predicted."""

    ranks: int = 1
    """Data-parallel ranks of the run."""
    waiting: bool = False
    """How long ranks wait for each other."""
    nodes: int | None = None
    """Nodes of the run, to predict what each of them fetches. None: this is not asked."""


def predicted(run: RunConfig, train: Dataset, asked: Asked) -> Mapping[str, Prediction]:
    """The predictions that are asked for, by their keys in JSON.

    Raises:
        ConfigError: As ``predicted_waiting`` and ``predicted_reads``.
        ShardError: As ``predicted_waiting``.
    """
    found: dict[str, Prediction] = {}
    if asked.waiting:
        found["waiting"] = predicted_waiting(
            *(run, train),
            ranks=asked.ranks,
            schedule=run.schedule,
            skips=skips_of(run.skipped),
        )
    if asked.nodes is not None:
        found["staging"] = predicted_reads(run, train, ranks=asked.ranks, nodes=asked.nodes)
    return found
