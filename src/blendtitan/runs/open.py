"""A run opened for inspection: configuration, checkpoints and data, without torch."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from blendtitan.batch_schedule import (
    BatchSchedule,
    consumed_at,
    samples_of,
    schedule_of_state,
    steps_before,
    with_jumps,
)
from blendtitan.config import ORIGINAL_ORDER, BlendConfig, SegmentConfig
from blendtitan.dataset.blended import BlendedDataset
from blendtitan.dataset.build import Datasets, build_datasets, read_catalog
from blendtitan.dataset.held_out import check_held_out
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.removed import Removal
from blendtitan.errors import BlendTitanError, ConfigError, EmptySplitError
from blendtitan.history.run import phases_of, settings_of, with_skips
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.original.dataset import OriginalDataset
from blendtitan.runs.batch_size import errors_of, global_batch_size_of
from blendtitan.runs.checkpoints import StoredState, latest_state, own_state
from blendtitan.runs.contents import Contents
from blendtitan.runs.run_folder import advising, run_file
from blendtitan.runs.run_tokenizer import eos_id_of, model_keys, tokenizer_of
from blendtitan.runs.slots import History, OriginalSlots, Slots, as_one_split
from blendtitan.settings.batch_changes import BatchChange, batch_changes, planned, resumed
from blendtitan.settings.batches import check_length, check_validation
from blendtitan.settings.horizon import horizon, samples_of_run
from blendtitan.settings.section import BlendSection, check_follows
from blendtitan.settings.segments import SegmentSettings, changes_of, segment_settings
from blendtitan.settings.skips import SkipSettings, placed_skips, skip_settings
from blendtitan.settings.toml import read_keys
from blendtitan.settings.validation_sets import ValidationSet, validation_sets
from blendtitan.state import parse_state
from blendtitan.storage.catalog import Catalog
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.tokenizers import Tokenizer
from blendtitan.visible import quietly

_FOLLOWING = {
    "blendcorpus.seq_length": "training.seq_len",
    "blendcorpus.micro_batch_size": "training.local_batch_size",
}

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """The data and the steps of a run, from its configuration."""

    path: Path
    """The TOML file."""
    output: Path
    """Its ``job.dump_folder``."""
    blend: BlendConfig
    """The blend and its segments, assuming that the run is never changed."""
    steps: int
    global_batch_size: int
    """Samples of a step of all ranks together."""
    micro_batch: int
    """Samples that one rank reads at once."""
    max_epochs: float
    validates: bool
    validation_sets: tuple[ValidationSet, ...]
    segments: tuple[SegmentSettings, ...]
    batch_changes: tuple[BatchChange, ...]
    may_shrink: bool
    """Whether steps may have been smaller than configured, because replicas were missing."""
    skips: tuple[SkipSettings, ...]
    balance: str
    """``none`` or ``attention``."""
    stage_bytes: int | None
    """Bytes of a node's disk for staging. None: the run does not stage."""
    tokenizer_check: str
    """Action if shards were made with another tokenizer: ``error`` or ``warn``."""
    model: Mapping[str, str | None]
    """The keys of ``[model]`` that name the model and its tokenizer."""

    @property
    def num_samples(self) -> int:
        """Samples of the whole run."""
        return samples_of(self.schedule, self.steps)

    @property
    def stop_slot(self) -> int:
        """The end of the whole run: the number of its samples and skipped slots."""
        return consumed_at(self.schedule, self.steps)

    @property
    def skipped(self) -> tuple[SkippedStretch, ...]:
        """Slots that a run leaves out that is never changed."""
        return placed_skips(self.skips, self._plain_schedule)

    @property
    def schedule(self) -> BatchSchedule:
        """The batch schedule of a run that is never changed."""
        return with_jumps(self._plain_schedule, skips_of(self.skipped))

    @property
    def _plain_schedule(self) -> BatchSchedule:
        """The same without skipped slots, which do not count as consumed."""
        return planned(self.global_batch_size, self.batch_changes, seq_len=self.blend.seq_length)

    def steps_of(self, samples: int) -> float:
        """Steps that train on so many samples from the first step on; not whole within a step."""
        return steps_before(self._plain_schedule, samples)

    def advising(self) -> AbstractContextManager[None]:
        """A block whose errors about the data say how to mend it."""
        return advising(self.path, Path(self.blend.data_file_list), self.model)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run; raises ConfigError if it cannot be used."""
        return tokenizer_of(self.model)


class RunData(NamedTuple):
    """The data of a run."""

    catalog: Catalog
    datasets: Datasets
    train: Dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """A run opened for inspection."""

    slots: Slots
    config: RunConfig | None
    """None: only the state of a checkpoint is known."""
    contents: Contents | None
    """The contents of the shards; None: the data is unknown or missing."""
    about: str
    """A sentence: the origin of the order, and why the data is missing, if it is."""
    num_samples: int
    """Slots of the whole run, if known, or else those of the checkpoint. Skipped ones count."""
    consumed_samples: int = 0
    """Samples that the run had read at the checkpoint; 0: no checkpoint is known."""
    removals: tuple[Removal, ...] = ()
    """When documents were removed, at the checkpoint."""


def open_run(
    config: Path | None,
    state: Path | None = None,
    *,
    ranks: int | None = None,
    removed: Path | None = None,
) -> OpenRun:
    """Open a run by its configuration, a checkpoint, or both.

    Args:
        config: TOML file of a run, or its folder; None: no data is read.
        state: Folder of a checkpoint, or of a run: its latest checkpoint with a state is used.
            None: the run's own folder. A run without checkpoints counts as never changed.
        ranks: Data-parallel ranks, if the configuration does not fix the global batch size.
        removed: List of removed documents. None: the configuration's.

    Raises:
        ConfigError: Neither is given, or one of them is unusable.
        ResumeError: The checkpoint cannot be read.
        ShardError: A shard cannot be used, and no state is given.
    """
    stored = None
    if state is not None:
        stored = latest_state(state)
    elif config is not None and config.is_dir():
        stored = own_state(config)
    run = None if config is None else read_run(config, ranks=ranks, trained=_schedule_of(stored))
    if run is not None and removed is not None:
        run = replace(run, blend=replace(run.blend, removed_documents=removed))
    if stored is not None:
        return _of_state(stored, run)
    if run is None:
        raise ConfigError("nothing to explain: name a run's configuration, or give --state")
    return unchanged_run(run)


def _schedule_of(stored: StoredState | None) -> BatchSchedule:
    known = None if stored is None else stored.state_dict
    return () if known is None else schedule_of_state(known)


def unchanged_run(
    run: RunConfig, schedule: BatchSchedule = (), *, train: Dataset | None = None
) -> OpenRun:
    """A run that is never changed; errors as ``data_of_run``.

    ``schedule`` is the batch schedule if it is known from a state, and ``train`` the dataset if it
    is known already.
    """
    catalog, _, new = data_of_run(run)
    train = train or new
    slots: Slots
    if isinstance(train, OriginalDataset):
        catalog = as_one_split(catalog)
        slots = OriginalSlots.of_dataset(train, catalog, schedule or run.schedule)
    else:
        assert isinstance(train, BlendedDataset)
        slots = History(phases_of(train), settings_of(train), run.schedule, run.skipped)
    return OpenRun(
        slots=slots,
        config=run,
        contents=Contents.of_blend(run.blend, catalog, "train"),
        about=f"{run.path}, assuming that it was never changed",
        num_samples=run.stop_slot,
    )


def _of_state(stored: StoredState, run: RunConfig | None) -> OpenRun:
    assert stored.state_dict is not None
    saved, schedule = parse_state(stored.state_dict), schedule_of_state(stored.state_dict)
    if not saved.phases:
        if run is None:
            raise ConfigError(
                f"{stored.path}: the original's order is in its index, not in the checkpoint. Name "
                f"the run's configuration as well"
            )
        return unchanged_run(run, schedule)
    if not schedule and run is not None:
        schedule = run.schedule
    if run is not None and run.batch_changes:
        size, seq_len = run.global_batch_size, run.blend.seq_length
        schedule = resumed(
            *(schedule, run.batch_changes, saved),
            size=size,
            step=stored.step,
            seq_len=seq_len,
            may_shrink=run.may_shrink,
        )
    history = History.of_state(saved, schedule)
    about = f"{stored.path}, at step {stored.step:,} after {saved.consumed_samples:,} samples"
    about += f" ({stored.note})" if stored.note else ""
    contents, num_samples = None, saved.consumed_samples
    if run is None:
        about += "; shards are known by name only, without the run's configuration"
    else:
        num_samples = max(num_samples, consumed_at(history.schedule, run.steps))
        try:
            with quietly(), run.advising():
                at = saved.removals, saved.consumed_samples
                contents = Contents.of_blend(run.blend, read_catalog(run.blend), history.split, *at)
        except (BlendTitanError, OSError) as error:
            about += f"; the data cannot be read: {error}"
    return OpenRun(
        slots=history,
        config=run,
        contents=contents,
        about=about,
        num_samples=num_samples,
        consumed_samples=saved.consumed_samples,
        removals=saved.removals,
    )


def data_of_run(run: RunConfig, *, check: TokenizerCheck | None = None) -> RunData:
    """The data of a run that is never changed; ``check`` compares its shards with the tokenizer.

    Raises:
        ConfigError: The file list, or a setting, cannot be used.
        ShardError: A shard cannot be used.
        EmptySplitError: A corpus has documents, but none of them for training.
    """
    with quietly(), run.advising():
        catalog = read_catalog(run.blend, check=check)
        for number, segment in enumerate(run.segments, start=1):
            segment.check_corpora(catalog.corpora, f"{run.path}: [[blendcorpus.segment]] {number}")
        datasets = build_datasets(run.blend, catalog)
    if datasets.train is None:
        raise EmptySplitError(
            f"{run.path}: blendcorpus.split is {run.blend.split!r}, which leaves no training data"
        )
    train, _ = with_skips(datasets.train, run.skipped)
    return RunData(catalog, datasets, train)


def data_of_set(held_out: ValidationSet, run: RunConfig, training: Catalog) -> Datasets:
    """A validation set, of which all documents are its valid split, checked against ``training``.

    Raises:
        ConfigError: The set cannot be used, or training reads documents of it.
        ShardError: A shard cannot be used.
    """
    blend, of_set = held_out.reading(run.blend), f"validation set {held_out.name!r}"
    with quietly():
        with errors_of(of_set):
            catalog = read_catalog(blend)
        check_held_out(held_out.name, catalog, training, allow_overlap=held_out.allow_overlap)
        with errors_of(of_set):
            return build_datasets(blend, catalog)


def read_run(
    source: Path,
    *,
    ranks: int | None = None,
    values: Values | None = None,
    trained: BatchSchedule = (),
) -> RunConfig:
    """The configuration of a run, from a TOML file or from a run's ``job.dump_folder``.

    Args:
        source: The file or the folder.
        ranks: Data-parallel ranks. Needed if ``training.global_batch_size`` is not set and
            ``trained`` is unknown.
        values: The values of all keys, if they are known already.
        trained: The batch schedule in the run's checkpoint, if it has one.

    Raises:
        ConfigError: A key cannot be used, the run does not train on a blend, or the tokenizer is
            needed and cannot be used.
    """
    path = run_file(source)
    if values is None:
        values = read_keys(path)
    if values["training.dataset"] != "blendcorpus":
        raise ConfigError(
            f"{path}: training.dataset is {values['training.dataset']!r}, which TorchTitan reads. "
            f"Expected 'blendcorpus', whose order is known."
        )
    for key, other in _FOLLOWING.items():
        check_follows(key, values[key], other=other, expected=values[other])
    size = trained[-1].global_batch_size if trained else None
    global_batch_size = global_batch_size_of(path, values, ranks, size)
    steps, seq_len = values["training.steps"], values["training.seq_len"]
    check_validation(steps=values["validation.steps"], samples=values["validation.samples"])
    with errors_of(path):
        segments = segment_settings(values["blendcorpus.segment"])
        skips = skip_settings(values["blendcorpus.skip"])
        sets = validation_sets(values["validation.set"])
        changes = batch_changes(
            values["training.batch_schedule"],
            local_batch_size=values["training.local_batch_size"],
            ranks=ranks,
        )
    largest = max([global_batch_size, *(change.global_batch_size for change in changes)])
    check_length(steps, global_batch_size=largest, seq_len=seq_len)
    has_parts = values["parallelism.pipeline_parallel_degree"] > 1
    part = "parallelism.pipeline_parallel_microbatch_size"
    run = RunConfig(
        path=path,
        output=Path(values["job.dump_folder"]),
        blend=_blend(path, values),
        steps=steps,
        global_batch_size=global_batch_size,
        micro_batch=values[part if has_parts else "training.local_batch_size"],
        max_epochs=values["blendcorpus.max_epochs"],
        validates=values["validation.enable"],
        validation_sets=sets,
        segments=segments,
        batch_changes=changes,
        may_shrink=values["fault_tolerance.batch_policy"] == "smaller_batch",
        skips=skips,
        balance=values["blendcorpus.balance"],
        stage_bytes=values["blendcorpus.data_stage_bytes"],
        tokenizer_check=values["blendcorpus.tokenizer_check"],
        model=model_keys(values),
    )
    first_slots = (
        SegmentConfig(first_slot=each.first_slot, shares=each.weights)
        for each in changes_of(segments, run.schedule, [(0, seq_len)], skips_of(run.skipped))
    )
    return replace(run, blend=replace(run.blend, segments=tuple(first_slots)))


def _blend(path: Path, values: Values) -> BlendConfig:
    keys = {each.name: f"blendcorpus.{each.name}" for each in fields(BlendSection)}
    section = BlendSection(**{name: values[key] for name, key in keys.items() if key in values})
    decided: dict[str, Any] = {}
    if section.order == ORIGINAL_ORDER:
        run = samples_of_run(
            steps=values["training.steps"],
            global_batch_size=values["training.global_batch_size"],
            batch_schedule=values["training.batch_schedule"],
            seq_len=values["training.seq_len"],
            validates=values["validation.enable"],
            validation=(values["validation.samples"], values["validation.steps"]),
        )
        decided = horizon(section, run)
    eos_id = eos_id_of(values) if section.eod_token_id is None else None
    with errors_of(path):
        return section.blend_config(
            dataset_path=values["training.dataset_path"],
            seq_len=values["training.seq_len"],
            eos_id=eos_id,
            **decided,
        )
