"""A sweep: configurations that differ only in their blends, and a table of these."""

import csv
import io
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.files import MOST_TOML_BYTES, read_text
from blendtitan.mixture.blends import Shares, SweepConfig, blends_of
from blendtitan.order.blend import shares_of
from blendtitan.run.toml import read_toml, toml_of
from blendtitan.runs.open import RunConfig, data_of_run, read_run
from blendtitan.storage.atomic_files import remove_file_partials, write_atomically
from blendtitan.tables import Table, filled_table

SHARES = "shares.csv"
"""The blend of each run: a file in the folder of a sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Blends of the corpora of one configuration."""

    run: RunConfig
    """The configuration that they are made from."""
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
        BlendTitanError: Others of ``data_of_run``.
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
    """Rows as a CSV file; numbers as Python spells them, None as nothing."""
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
            f"{folder}: this folder has no {SHARES}. Name one that `blendtitan sweep` has written."
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
            f"line. Write it again with the same `blendtitan sweep` as before."
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
    return filled_table(
        ("corpus", "base", "least", "mean", "largest"),
        ([name, *(f"{share:.2%}" for share in shares)] for name, *shares in rows),
    )


def how_to_train(folder: Path, sweep: Sweep) -> Iterator[str]:
    """Lines with the commands that train the runs and collect their losses."""
    quoted = shlex.quote(str(folder))
    yield (
        f"{len(sweep.blends)} configurations in {folder}, and {SHARES}. Train them from this "
        f"folder, one after the other or each as a job:"
    )
    yield from ("", f"  for config in {quoted}/blend-*.toml; do")
    yield (
        "    torchrun --nproc-per-node 1 -m blendtitan.titan.train "
        '--job.config_file "$config" || break'
    )
    yield from ("  done", "", "A run that is started again resumes from its last checkpoint. Then:")
    yield from ("", f"  blendtitan sweep {quoted} --collect")


def _check_can_be_swept(run: RunConfig) -> None:
    if run.segments:
        raise ConfigError(
            f"{run.path}: blendcorpus.segment has {len(run.segments)} entries, expected none: a "
            f"sweep puts each blend in its place, from step 0 on. Delete them, and let the weights "
            f"of the file list be the base of the sweep."
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
    # A share that is meant to be the limit exactly may be computed as a little more.
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
            f"{differs[0]}: found the file of another sweep, expected the one that this "
            f"configuration and these arguments make. Choose another folder; or delete this one, "
            f"with everything that its runs wrote."
        )


def _text_of(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None
