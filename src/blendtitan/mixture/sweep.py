"""A sweep: configurations that differ in their blends alone, and a table of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.files import MOST_TOML_BYTES, read_text
from blendtitan.mixture.blends import Shares
from blendtitan.mixture.method import SweepConfig, blends_of
from blendtitan.mixture.shares_file import SHARES, shares_text
from blendtitan.mixture.toml_text import with_keys
from blendtitan.run.toml import read_toml
from blendtitan.runs.run import Run, data_of_run, read_run
from blendtitan.storage.atomic_files import remove_file_partials, write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Blends of the corpora of one configuration."""

    run: Run
    """The configuration that they are made of."""

    corpora: tuple[str, ...]
    base: Shares
    """The blend of its file list. Shape ``(num_corpora,)``."""

    blends: Shares
    """Shape ``(num_blends, num_corpora)``."""

    @property
    def names(self) -> list[str]:
        """The run of each blend."""
        return [f"blend-{number:03d}" for number in range(len(self.blends))]


class _Files(NamedTuple):
    configurations: dict[Path, str]
    shares: str


def plan_sweep(source: Path, config: SweepConfig, *, ranks: int | None = None) -> Sweep:
    """The blends of a sweep. Nothing is written.

    Args:
        source: The TOML file, or the folder of a run, that the blends are tried with.
        config: Which blends.
        ranks: Data-parallel ranks; needed where ``training.global_batch_size`` is not set.

    Raises:
        ConfigError: The configuration cannot be used, or has segments, the original's order or no
            TensorBoard; a corpus is unknown; or a blend reads a corpus too often.
        BlendTitanError: Others of ``data_of_run``.
    """
    run = read_run(source, ranks=ranks)
    _check_can_be_swept(run)
    train = data_of_run(run).train
    (segment,) = train.segments_read
    weights = np.array([segment.weights[name] for name in train.corpora])
    base = weights / weights.sum()
    sweep = Sweep(
        run=run,
        corpora=train.corpora,
        base=base,
        blends=blends_of(config, train.corpora, base),
    )
    _check_repetition(sweep, train)
    return sweep


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write a configuration for each blend, and their shares; a sweep that is there may grow.

    Raises:
        ConfigError: The folder holds another sweep.
    """
    files = _files(folder, sweep)
    _check_same_sweep(folder, files)
    folder.mkdir(parents=True, exist_ok=True)
    # Last comes the table: where it is, all its configurations are.
    for path, text in [*files.configurations.items(), (folder / SHARES, files.shares)]:
        remove_file_partials(path)
        if _text_of(path) != text:
            write_atomically(path, text.encode())


def segment_of(shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """``blendcorpus.segment`` of a run that reads these shares from its first step on."""
    return [{"from_step": 0, "shares": dict(shares)}]


def _files(folder: Path, sweep: Sweep) -> _Files:
    text = read_text(sweep.run.path, most_bytes=MOST_TOML_BYTES)
    configurations = {
        folder / f"{name}.toml": with_keys(
            text,
            {
                "job.dump_folder": str(folder / name),
                "blendcorpus.segment": segment_of(dict(zip(sweep.corpora, row, strict=True))),
            },
        )
        for name, row in zip(sweep.names, sweep.blends.tolist(), strict=True)
    }
    return _Files(configurations, shares_text(sweep.names, sweep.corpora, sweep.blends))


def _check_can_be_swept(run: Run) -> None:
    if run.segments:
        raise ConfigError(
            f"{run.path}: blendcorpus.segment has {len(run.segments)} entries, expected none: a "
            f"sweep puts each blend in its place, from step 0 on. Delete them, and let the weights "
            f"of the file list be the blend that the others are made around."
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
    # A share that stands for the limit exactly may be computed as a little more.
    limit = sweep.run.max_epochs * (1 + 1e-9)
    often = np.argwhere(epochs > limit).tolist() if limit else []
    if often:
        shown = [
            f"{sweep.corpora[j]} {epochs[i, j]:.3g} times in {sweep.names[i]}" for i, j in often[:8]
        ]
        raise ConfigError(
            f"{sweep.run.path}: of {len(sweep.blends)} blends, {len({i for i, _ in often})} would "
            f"read a corpus more often than blendcorpus.max_epochs = {sweep.run.max_epochs:g} "
            f"allows, and their runs refuse to start: {', '.join(shown)}"
            f"{', ...' if len(often) > len(shown) else ''}. Train for fewer steps, choose blends "
            f"nearer to the base, or raise blendcorpus.max_epochs (0: no limit)."
        )


def _check_same_sweep(folder: Path, files: _Files) -> None:
    shares = _text_of(folder / SHARES)
    if shares is not None and not files.shares.startswith(shares):
        differs = folder / SHARES
    else:
        found = ((path, _text_of(path)) for path in files.configurations)
        differs = next(
            (path for path, text in found if text not in (None, files.configurations[path])), None
        )
    if differs is not None:
        raise ConfigError(
            f"{differs}: found what another configuration or other arguments make, expected what "
            f"these do. Choose another folder; or delete this one, with what its runs wrote."
        )


def _text_of(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None
