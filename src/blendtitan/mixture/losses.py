"""Per-corpus losses of the runs of a sweep: a table for a search for the best blend."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.metric_names import CORPUS_LABELS, CORPUS_LOSS, LOSS, VALIDATION_LOSS
from blendtitan.mixture.sweep import csv_text, read_shares, segment_of
from blendtitan.run.toml import RESOLVED, read_toml
from blendtitan.runs.scalars import Scalars, has_scalars, read_scalars
from blendtitan.storage.atomic_files import (
    check_replaceable,
    remove_file_partials,
    write_atomically,
)
from blendtitan.tables import Table, filled_table

LOSSES, RATIOS, METRICS = "losses.csv", "ratios.csv", "metrics.csv"
"""Files in the folder of a sweep: everything; and, of the finished runs, shares and losses apart,
with the run as ``run_id`` in front of both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLosses:
    """One run of a sweep."""

    run: str
    shares: Mapping[str, float]
    logged: int = 0
    """The last step with losses; 0: there is none."""
    steps: int | None = None
    """Steps of the whole run; None: it was not begun."""
    finished: bool = False
    losses: Mapping[str, float] = field(default_factory=dict)
    """By column, without those that the run did not log; empty: the run is not finished."""

    def cells(self, columns: Iterable[str]) -> list[str]:
        """Losses to the digits that a run's logs have; empty where there is none."""
        return [f"{self.losses[name]:.7g}" if name in self.losses else "" for name in columns]


def read_losses(folder: Path, *, last: int) -> list[RunLosses]:
    """The losses of all runs of a sweep, training losses as means over the ``last`` logged steps.

    Raises:
        ConfigError: The folder holds no sweep, or a run was made with another blend.
    """
    check_at_least("--last", last, 1)
    return [_run_losses(folder, run, shares, last) for run, shares in read_shares(folder).items()]


def write_losses(folder: Path, runs: Sequence[RunLosses], *, overwrite: bool = False) -> None:
    """Write ``losses.csv``, ``ratios.csv`` and ``metrics.csv``.

    The last two are what `olmix fit --from-csv` reads, and, with the run as index, RegMix.

    Raises:
        ConfigError: The folder holds such a file.
    """
    corpora = list(runs[0].shares)
    columns = _columns(runs, corpora)
    finished = [run for run in runs if run.finished]
    shares = [f"share/{corpus}" for corpus in corpora]
    if not overwrite:
        # Columns of losses are added when runs finish.
        check_replaceable(folder / LOSSES, _header_pattern("run", "steps", *shares) + "(,loss|$)")
        check_replaceable(folder / RATIOS, _header_pattern("run_id", *corpora) + "$")
        check_replaceable(folder / METRICS, _header_pattern("run_id") + "(,loss|$)")
    every = ([run.run, run.logged, *run.shares.values(), *run.cells(columns)] for run in runs)
    for name, rows in {
        LOSSES: [["run", "steps", *shares, *columns], *every],
        RATIOS: [["run_id", *corpora], *([run.run, *run.shares.values()] for run in finished)],
        METRICS: [["run_id", *columns], *([run.run, *run.cells(columns)] for run in finished)],
    }.items():
        remove_file_partials(folder / name)
        write_atomically(folder / name, csv_text(rows).encode())


def mean_losses(
    scalars: Mapping[str, Scalars], corpora: Iterable[str], *, last: int
) -> dict[str, float]:
    """Losses of a run by column: training over the last logged steps, validation the last one.

    A corpus's training loss is the mean over its labels in these steps. A corpus without labels,
    and a validation that was not made, are missing.
    """
    training = scalars[LOSS]
    first = int(training.steps[-last:][0])
    losses = {"loss": float(training.values[-last:].mean())}
    for corpus in corpora:
        means, labels = (
            _since(scalars.get(f"{metric}/{corpus}"), first)
            for metric in (CORPUS_LOSS, CORPUS_LABELS)
        )
        if len(labels):
            losses[f"loss/{corpus}"] = float(np.average(means, weights=labels))
    return losses | {
        f"valid_loss{suffix}": float(scalars[f"{VALIDATION_LOSS}{suffix}"].values[-1])
        for suffix in ("", *(f"/{corpus}" for corpus in corpora))
        if f"{VALIDATION_LOSS}{suffix}" in scalars
    }


def losses_table(runs: Iterable[RunLosses]) -> Table:
    """How far each run is, and the blend's losses of those that are finished."""
    table = filled_table(("run", "steps", "loss", "validation loss"), [])
    for run in runs:
        steps = "not begun" if run.steps is None else f"{run.logged:,} of {run.steps:,}"
        losses = [run.losses.get(column) for column in ("loss", "valid_loss")]
        table.add_row(run.run, steps, *(None if x is None else f"{x:.4f}" for x in losses))
    return table


def last_logged(steps: int, freq: int) -> int:
    """The last step with a log, where the first and every ``freq``-th step have one."""
    return steps - steps % freq or 1


def _run_losses(folder: Path, run: str, shares: Mapping[str, float], last: int) -> RunLosses:
    path = folder / run / RESOLVED
    if not path.is_file():
        return RunLosses(run=run, shares=shares)
    settings = read_toml(path)
    found = settings["blendcorpus.segment"]
    if found != segment_of(shares):
        raise ConfigError(
            f"{path}: the run was made with blendcorpus.segment = {found}, expected "
            f"{segment_of(shares)}, as the table of the sweep has it. Delete the run's folder and "
            f"train it again with the configuration beside it."
        )
    steps = settings["training.steps"]
    scalars = read_scalars(folder / run) if has_scalars(folder / run) else {}
    logged = _last_step(scalars, LOSS)
    finished = logged >= last_logged(steps, settings["metrics.log_freq"])
    if settings["validation.enable"]:
        validated = _last_step(scalars, VALIDATION_LOSS)
        finished &= validated >= last_logged(steps, settings["validation.freq"])
    return RunLosses(
        run=run,
        shares=shares,
        logged=logged,
        steps=steps,
        finished=finished,
        losses=mean_losses(scalars, shares, last=last) if finished else {},
    )


def _since(scalars: Scalars | None, first: int) -> np.ndarray:
    return np.empty(0) if scalars is None else scalars.values[scalars.steps >= first]


def _last_step(scalars: Mapping[str, Scalars], tag: str) -> int:
    return int(scalars[tag].steps[-1]) if tag in scalars else 0


def _columns(runs: Iterable[RunLosses], corpora: Iterable[str]) -> list[str]:
    """Columns of losses: of the blend and of every corpus, of what any run has logged."""
    logged = {column for run in runs for column in run.losses}
    return [
        column
        for kind in ("loss", "valid_loss")
        if kind in logged
        for column in (kind, *(f"{kind}/{corpus}" for corpus in corpora))
    ]


def _header_pattern(*columns: str) -> str:
    return rf"\A{re.escape(csv_text([columns]).rstrip())}"
