"""A sweep: configurations that differ only in their blends, a table of these, and their losses."""

import csv
import io
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from blendtitan.config import check_at_least
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.files import MOST_TOML_BYTES, read_text
from blendtitan.metric_names import CORPUS_LABELS, CORPUS_LOSS, LOSS, VALIDATION_LOSS
from blendtitan.mixture.blends import Shares, SweepConfig, blends_of
from blendtitan.order.blend import shares_of
from blendtitan.runs.open import RunConfig, data_of_run, read_run
from blendtitan.runs.scalars import Scalars, has_scalars, read_scalars
from blendtitan.settings.toml import RESOLVED, read_toml, toml_of
from blendtitan.storage.atomic_files import (
    remove_file_partials,
    write_atomically,
)
from blendtitan.storage.replaceable import check_replaceable
from blendtitan.tables import Table

SHARES = "shares.csv"
"""The blend of each run: a file in the folder of a sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Blends of the corpora of one configuration."""

    run: RunConfig
    """The base configuration."""
    corpora: tuple[str, ...]
    base: Shares
    """The blend of its file list. Shape ``(num_corpora,)``."""
    blends: Shares
    """Shape ``(num_blends, num_corpora)``."""

    @property
    def names(self) -> list[str]:
        """The run of each blend."""
        return [f"blend-{number:03d}" for number in range(len(self.blends))]


def plan_sweep(source: Path, config: SweepConfig, *, ranks: int | None = None) -> Sweep:
    """The blends of a sweep. Nothing is written.

    Raises:
        ConfigError: The configuration cannot be used, or has segments, the original's order or no
            TensorBoard; a corpus is unknown; or a blend reads a corpus too often.
        BlendTitanError: Other errors of ``data_of_run``.
    """
    run = read_run(source, ranks=ranks)
    _check_can_be_swept(run)
    train = data_of_run(run).train
    (segment,) = train.segments_read
    shares = shares_of({name: segment.weights[name] for name in train.corpora})
    base = np.array([*shares.values()])
    blends = blends_of(config, train.corpora, base)
    sweep = Sweep(run=run, corpora=train.corpora, base=base, blends=blends)
    _check_repetition(sweep, train)
    return sweep


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write a configuration for each blend, and their shares; an existing sweep may grow.

    Raises:
        ConfigError: The folder holds another sweep.
    """
    text = read_text(sweep.run.path, most_bytes=MOST_TOML_BYTES)
    blends = sweep.blends.tolist()
    configurations = {
        folder / f"{name}.toml": with_keys(
            text,
            {
                "job.dump_folder": str(folder / name),
                "blendcorpus.segment": segment_of(dict(zip(sweep.corpora, row, strict=True))),
            },
        )
        for name, row in zip(sweep.names, blends, strict=True)
    }
    rows = ([name, *row] for name, row in zip(sweep.names, blends, strict=True))
    shares = csv_text([["run", *sweep.corpora], *rows])
    _check_same_sweep(folder, configurations, shares)
    folder.mkdir(parents=True, exist_ok=True)
    # The table comes last: if it exists, all its configurations do.
    for path, content in [*configurations.items(), (folder / SHARES, shares)]:
        remove_file_partials(path)
        if _text_of(path) != content:
            write_atomically(path, content.encode())


def segment_of(shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """``blendcorpus.segment`` of a run that reads these shares from its first step on."""
    return [{"from_step": 0, "shares": dict(shares)}]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as a CSV file; numbers in Python's form, None as an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_shares(folder: Path) -> dict[str, dict[str, float]]:
    """Share of each corpus, by run.

    Raises:
        ConfigError: The folder has no ``shares.csv``, or it cannot be used.
    """
    path = folder / SHARES
    if not path.is_file():
        raise ConfigError(
            f"{folder}: this folder has no {SHARES}. Name a folder that `blendtitan sweep` wrote."
        )
    try:
        (_, *corpora), *rows = [*csv.reader(io.StringIO(read_text(path)))] or [[""]]
        shares = {
            run: {name: float(share) for name, share in zip(corpora, row, strict=True)}
            for run, *row in rows
        }
    except ValueError as error:
        raise ConfigError(
            f"{path}: cannot be used ({error}), expected a run and a share of each corpus in every "
            f"line. Write it again with the same `blendtitan sweep` command."
        ) from error
    if not shares:
        raise ConfigError(f"{path}: found no run in it, expected at least one")
    return shares


def with_keys(text: str, keys: Mapping[str, Any]) -> str:
    """A TOML text with other values for some ``section.key``, its comments and order kept."""
    document = tomlkit.parse(text)
    expected = tomllib.loads(text)
    for name, value in keys.items():
        section, _, key = name.partition(".")
        if section not in document:
            document[section] = tomlkit.table()
        document[section][key] = tomlkit.value(toml_of(value))  # pyright: ignore[reportIndexIssue]
        expected.setdefault(section, {})[key] = value
    changed = tomlkit.dumps(document)
    assert tomllib.loads(changed) == expected
    return changed


def sweep_table(sweep: Sweep) -> Table:
    """The shares of each corpus: in the base, and the least, mean and largest of the blends."""
    columns = (sweep.base, sweep.blends.min(0), sweep.blends.mean(0), sweep.blends.max(0))
    rows = zip(sweep.corpora, *columns, strict=True)
    return Table(
        ("corpus", "base", "least", "mean", "largest"),
        ([name, *(f"{share:.2%}" for share in shares)] for name, *shares in rows),
    )


def how_to_train(folder: Path, sweep: Sweep) -> Iterator[str]:
    """Lines with the commands that train the runs and collect their losses."""
    quoted = shlex.quote(str(folder))
    yield (
        f"Wrote {len(sweep.blends)} configurations and {SHARES} into {folder}. Train them from the "
        f"folder {Path.cwd()}, one after the other or each as a job:"
    )
    yield from ("", f"  for config in {quoted}/blend-*.toml; do")
    yield from ('    blendtitan train "$config" || break', "  done", "")
    yield "A restarted run resumes from its last checkpoint. Then:"
    yield from ("", f"  blendtitan sweep {quoted} --collect")


def _check_can_be_swept(run: RunConfig) -> None:
    if run.segments:
        raise ConfigError(
            f"{run.path}: blendcorpus.segment has {len(run.segments)} entries, expected none: a "
            f"sweep sets one segment per run, from step 0 on. Delete them; the base of the sweep "
            f"is then the blend of the file list."
        )
    if run.blend.has_horizon:
        raise ConfigError(
            f'{run.path}: blendcorpus.order is {run.blend.order!r}, expected "blendtitan": a blend '
            f"of a sweep is a segment, which the original's order does not have."
        )
    if read_toml(run.path).get("metrics.enable_tensorboard") is not True:
        raise ConfigError(
            f"{run.path}: metrics.enable_tensorboard is not true, so the losses of the runs could "
            f"not be collected. Set it."
        )


def _check_repetition(sweep: Sweep, train: Dataset) -> None:
    tokens = sweep.run.num_samples * sweep.run.blend.seq_length
    epochs = sweep.blends * tokens / train.corpus_tokens
    # A share exactly at the limit may be computed as slightly more.
    limit = sweep.run.max_epochs * (1 + 1e-9)
    often = np.argwhere(epochs > limit).tolist() if limit else []
    if often:
        shown = [
            f"{sweep.corpora[j]} {epochs[i, j]:.3g} times in {sweep.names[i]}" for i, j in often[:8]
        ]
        raise ConfigError(
            f"{sweep.run.path}: of {len(sweep.blends)} blends, {len({i for i, _ in often})} would "
            f"read a corpus more often than blendcorpus.max_epochs = {sweep.run.max_epochs:g} "
            f"allows, and their runs would refuse to start: {', '.join(shown)}"
            f"{', ...' if len(often) > len(shown) else ''}. Train for fewer steps, choose blends "
            f"nearer to the base, or raise blendcorpus.max_epochs (0: no limit)."
        )


def _check_same_sweep(folder: Path, configurations: Mapping[Path, str], shares: str) -> None:
    present = _text_of(folder / SHARES)
    differs = [folder / SHARES] if present and not shares.startswith(present) else []
    differs += [p for p, text in configurations.items() if _text_of(p) not in (None, text)]
    if differs:
        raise ConfigError(
            f"{differs[0]}: found the file of another sweep, expected the file for this "
            f"configuration and these arguments. Choose another folder; or delete this folder, "
            f"including the output of its runs."
        )


def _text_of(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None


LOSSES, RATIOS, METRICS = "losses.csv", "ratios.csv", "metrics.csv"
"""Files in the folder of a sweep: everything in one table; and the shares and the losses of the
finished runs in two, each with ``run_id`` as its first column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLosses:
    """One run of a sweep."""

    run: str
    shares: Mapping[str, float]
    logged: int = 0
    """The last step with losses; 0 if there is none."""
    steps: int | None = None
    """Steps of the whole run; None: it was not begun."""
    finished: bool = False
    losses: Mapping[str, float] = field(default_factory=dict)
    """Losses by column, if logged; empty: the run is not finished."""

    def cells(self, columns: Iterable[str]) -> list[str]:
        """Losses with the digits of a run's logs; missing losses are empty."""
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

    ``losses.csv`` has a column for every loss that a run logged. The regressions of Olmix and
    RegMix fail on gaps, so ``metrics.csv`` has only the losses that all finished runs logged.

    Raises:
        ConfigError: The folder holds such a file.
    """
    corpora, columns = list(runs[0].shares), _columns(runs)
    finished = [run for run in runs if run.finished]
    complete = [column for column in columns if column not in _gaps(runs)]
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
        METRICS: [["run_id", *complete], *([run.run, *run.cells(complete)] for run in finished)],
    }.items():
        remove_file_partials(folder / name)
        write_atomically(folder / name, csv_text(rows).encode())


def mean_losses(
    scalars: Mapping[str, Scalars], corpora: Iterable[str], *, last: int
) -> dict[str, float]:
    """Losses of a run by column: training over the last logged steps, validation the last one.

    A corpus's training loss is the mean over its labels in these steps. A corpus without labels,
    and a validation that did not happen, are missing. Validation sets follow the corpora.
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
        tag.replace(VALIDATION_LOSS, "valid_loss"): float(scalars[tag].values[-1])
        for tag in scalars
        if tag.startswith(VALIDATION_LOSS)
    }


def losses_table(runs: Iterable[RunLosses]) -> Table:
    """The progress of each run, and the blend's losses of finished runs."""
    table = Table(("run", "steps", "loss", "validation loss"))
    for run in runs:
        steps = "not begun" if run.steps is None else f"{run.logged:,} of {run.steps:,}"
        losses = [run.losses.get(column) for column in ("loss", "valid_loss")]
        table.add_row(run.run, steps, *(None if x is None else f"{x:.4f}" for x in losses))
    return table


def missing_columns(runs: Sequence[RunLosses]) -> Iterator[str]:
    """Lines that name the losses without a column, and why."""
    columns, gaps = _columns(runs), _gaps(runs)
    for kind, name in (("loss", "training"), ("valid_loss", "validation")):
        missing = [c for c in runs[0].shares if f"{kind}/{c}" not in columns]
        if missing and kind in columns:
            names = ", ".join(missing)
            yield f"No finished run has a {name} loss of {names}, so there is no such column."
    if gaps:
        yield f"{METRICS} omits losses that some finished runs did not log: {', '.join(gaps)}."


def last_logged(steps: int, freq: int) -> int:
    """The last logged step, if the first and every ``freq``-th step are logged."""
    return steps - steps % freq or 1


def _run_losses(folder: Path, run: str, shares: Mapping[str, float], last: int) -> RunLosses:
    path = folder / run / RESOLVED
    if not path.is_file():
        return RunLosses(run=run, shares=shares)
    settings = read_toml(path)
    found = settings["blendcorpus.segment"]
    if found != segment_of(shares):
        raise ConfigError(
            f"{path}: the run has blendcorpus.segment = {found}, expected {segment_of(shares)}, as "
            f"in {SHARES}. Delete its folder and train with the configuration beside it."
        )
    steps = settings["training.steps"]
    scalars = read_scalars(folder / run) if has_scalars(folder / run) else {}
    logged = _last_step(scalars, LOSS)
    finished = logged >= last_logged(steps, settings["metrics.log_freq"])
    if settings["validation.enable"]:
        validated = last_logged(steps, settings["validation.freq"])
        finished &= _last_step(scalars, VALIDATION_LOSS) >= validated
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


def _last_step(scalars: Mapping[str, Scalars], metric: str) -> int:
    return max((int(scalars[t].steps[-1]) for t in scalars if t.startswith(metric)), default=0)


def _columns(runs: Sequence[RunLosses]) -> list[str]:
    """Columns of the losses that any run has logged, of the blend and of each corpus."""
    logged = {column for run in runs for column in run.losses}
    suffixes = ["", *(f"/{corpus}" for corpus in runs[0].shares)]
    every = [f"{kind}{suffix}" for kind in ("loss", "valid_loss") for suffix in suffixes]
    return [*(column for column in every if column in logged), *sorted(logged - {*every})]


def _gaps(runs: Sequence[RunLosses]) -> list[str]:
    """Columns that some finished runs have and others lack."""
    finished = [run.losses for run in runs if run.finished]
    return [c for c in _columns(runs) if any(c not in losses for losses in finished)]


def _header_pattern(*columns: str) -> str:
    return rf"\A{re.escape(csv_text([columns]).rstrip())}"
