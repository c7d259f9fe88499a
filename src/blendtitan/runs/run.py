"""A run as its configuration tells it, read in milliseconds: without torch, without training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from blendtitan.config import (
    ORIGINAL_ORDER,
    BlendConfig,
    BlendSection,
    SegmentConfig,
    check_at_least,
    check_follows,
)
from blendtitan.dataset.build import Datasets, build_datasets, read_catalog
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.pace import Pace
from blendtitan.run.batches import (
    check_batches,
    check_length,
    check_validation,
    horizon,
    samples_of_run,
)
from blendtitan.run.segments import SegmentSettings, changes_of, segment_settings
from blendtitan.run.toml import RESOLVED, read_keys
from blendtitan.storage.catalog import Catalog
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.tokenizers import ABSENT, Tokenizer, build_tokenizer
from blendtitan.visible import quietly

_FOLLOWING = {
    "blendcorpus.seq_length": "training.seq_len",
    "blendcorpus.micro_batch_size": "training.local_batch_size",
}

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a run reads, and in which steps."""

    path: Path
    """The TOML file."""

    blend: BlendConfig
    """Segments begin where they do in a run that is never changed."""

    steps: int
    global_batch_size: int
    """Samples of a step of all ranks together."""

    micro_batch: int
    """Samples that one rank reads at once."""

    max_epochs: float
    validates: bool
    segments: tuple[SegmentSettings, ...]
    tokenizer_check: str
    """What to do where shards were made with another tokenizer: ``error`` or ``warn``."""

    model: Mapping[str, str | None]
    """The keys of ``[model]`` that name the tokenizer."""

    @property
    def num_samples(self) -> int:
        """Samples of the whole run."""
        return self.steps * self.global_batch_size

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run.

        Raises:
            ConfigError: It cannot be used.
        """
        return _tokenizer(tuple(self.model.items()))


def read_run(source: Path, *, ranks: int | None = None) -> Run:
    """The run of a TOML file, or of a run's folder.

    Args:
        source: A TOML file, or the ``job.dump_folder`` of a run, which holds its ``config.toml``.
        ranks: Data-parallel ranks; needed where ``training.global_batch_size`` is not set.

    Raises:
        ConfigError: A key cannot be used, no blend is trained on, or the tokenizer is needed and
            cannot be used.
    """
    path = _config_path(source)
    values = read_keys(path)
    if values["training.dataset"] != "blendcorpus":
        raise ConfigError(
            f"{path}: training.dataset is {values['training.dataset']!r}, which TorchTitan reads. "
            f"Expected 'blendcorpus': only its order is known."
        )
    for key, other in _FOLLOWING.items():
        check_follows(key, values[key], other=other, expected=values[other])
    global_batch_size = _global_batch_size(path, values, ranks)
    steps, seq_len = values["training.steps"], values["training.seq_len"]
    check_length(steps, global_batch_size=global_batch_size, seq_len=seq_len)
    check_validation(steps=values["validation.steps"], samples=values["validation.samples"])
    segments = segment_settings(values["blendcorpus.segment"])
    has_parts = values["parallelism.pipeline_parallel_degree"] > 1
    part = "parallelism.pipeline_parallel_microbatch_size"
    return Run(
        path=path,
        blend=_with_segments(_blend(path, values), segments, global_batch_size),
        steps=steps,
        global_batch_size=global_batch_size,
        micro_batch=values[part if has_parts else "training.local_batch_size"],
        max_epochs=values["blendcorpus.max_epochs"],
        validates=values["validation.enable"],
        segments=segments,
        tokenizer_check=values["blendcorpus.tokenizer_check"],
        model=_model(values),
    )


class RunData(NamedTuple):
    """The data of a run."""

    catalog: Catalog
    datasets: Datasets
    train: Dataset


def data_of_run(run: Run, *, check: TokenizerCheck | None = None) -> RunData:
    """What a run that is never changed reads from.

    Args:
        run: Its settings.
        check: Compares its shards with its tokenizer. None: they are not compared.

    Raises:
        ConfigError: The file list, or a setting, cannot be used.
        ShardError: A shard cannot be used.
        EmptySplitError: A corpus has documents, but none of them for training.
    """
    with quietly():
        catalog = read_catalog(run.blend, check=check)
        datasets = build_datasets(run.blend, catalog)
    if datasets.train is None:
        raise EmptySplitError(
            f"{run.path}: nothing is trained on: blendcorpus.split is {run.blend.split!r}"
        )
    return RunData(catalog, datasets, datasets.train)


def _config_path(source: Path) -> Path:
    if not source.is_dir():
        return source
    if not (source / RESOLVED).is_file():
        raise ConfigError(
            f"{source}: this folder has no {RESOLVED}. Name a run's job.dump_folder, or a TOML file"
        )
    return source / RESOLVED


def _global_batch_size(path: Path, values: Values, ranks: int | None) -> int:
    """Samples of a step of all ranks together, checked as the trainer checks it."""
    set_by = "training.global_batch_size"
    size, local = values[set_by], values["training.local_batch_size"]
    known = _known_ranks(values)
    if ranks is not None:
        check_at_least("--ranks", ranks, 1)
        if ranks % known:
            raise ConfigError(
                f"{path}: --ranks is {ranks}, expected a multiple of {known}: the product of the "
                f"data-parallel degrees in [parallelism]"
            )
    try:
        check_batches(
            size, local_batch_size=local, ranks=ranks or known, are_all_ranks=ranks is not None
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if size > 0:
        return size
    if ranks is None:
        raise ConfigError(
            f"{path}: {set_by} is {size}, so a step has one micro batch of every rank. Give the "
            f"number of data-parallel ranks with --ranks, or set {set_by}."
        )
    return local * ranks


def _known_ranks(values: Values) -> int:
    """A number that the data-parallel ranks are a multiple of, whatever the processes."""
    degrees = ("data_parallel_replicate_degree", "data_parallel_shard_degree")
    return math.prod(max(1, values[f"parallelism.{degree}"]) for degree in degrees)


def _blend(path: Path, values: Values) -> BlendConfig:
    keys = {each.name: f"blendcorpus.{each.name}" for each in fields(BlendSection)}
    section = BlendSection(**{name: values[key] for name, key in keys.items() if key in values})
    decided: dict[str, Any] = {}
    if section.order == ORIGINAL_ORDER:
        run = samples_of_run(
            steps=values["training.steps"],
            global_batch_size=values["training.global_batch_size"],
            validates=values["validation.enable"],
            validation=(values["validation.samples"], values["validation.steps"]),
        )
        decided = horizon(section, run)
    eos_id = _eos_id(values) if section.eod_token_id is None else None
    try:
        return section.blend_config(
            dataset_path=values["training.dataset_path"],
            seq_len=values["training.seq_len"],
            eos_id=eos_id,
            **decided,
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _eos_id(values: Values) -> int | None:
    """The tokenizer's EOS, which ends a document unless something else is configured."""
    try:
        eos_id = _tokenizer(tuple(_model(values).items())).eos_id
    except ConfigError as error:
        error.add_note(
            "Documents end in the tokenizer's EOS. Without the tokenizer, set "
            "blendcorpus.eod_token_id."
        )
        raise
    return None if eos_id == ABSENT else eos_id


def _with_segments(
    blend: BlendConfig, segments: tuple[SegmentSettings, ...], global_batch_size: int
) -> BlendConfig:
    pace = Pace(global_batch_size=global_batch_size)
    changes = changes_of(segments, (pace,), [(0, blend.seq_length)])
    return replace(
        blend,
        segments=tuple(
            SegmentConfig(first_slot=change.first_slot, shares=change.weights) for change in changes
        ),
    )


def _model(values: Values) -> Mapping[str, str | None]:
    names = ("tokenizer_backend", "tokenizer_path", "hf_assets_path")
    return {name: values[f"model.{name}"] for name in names}


@lru_cache(maxsize=1)
def _tokenizer(model: tuple[tuple[str, str | None], ...]) -> Tokenizer:
    with quietly():
        return build_tokenizer({"model": dict(model)})
