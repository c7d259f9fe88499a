"""Check a run before its processes start, without TorchTitan.

Several processes take up to a minute to import TorchTitan and to meet, on a busy machine longer.
Everything that can be known earlier is checked here, by the functions that the trainer uses, and so
in the same words.
"""

import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from blendtitan.checkpoints import METADATA, choose_step
from blendtitan.claims.others import check_unclaimed
from blendtitan.config import check_at_least
from blendtitan.dataset.build import read_catalog
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import check_repetition
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.runs.open import RunConfig, Values, data_of_run, data_of_set, read_run
from blendtitan.runs.prepared import check_current
from blendtitan.runs.resumed import checkpoint_folder, continued_from, usable_state
from blendtitan.runs.run_folder import check_own_output, check_prepared
from blendtitan.settings.batches import (
    check_batches,
    check_on_cpu,
    check_seq_len,
    data_ranks,
    model_vocab_size,
)
from blendtitan.settings.guards import GuardSettings
from blendtitan.settings.known_models import MODELS, TORCHTITAN
from blendtitan.settings.overrides import naming_command_line, read_run_keys
from blendtitan.settings.replicas import (
    check_lighthouse,
    check_replicas,
    replica_name,
    samples_per_step,
)
from blendtitan.settings.toml import COMMAND_LINE, check_known, read_arguments, read_toml
from blendtitan.settings.wall_time import job_end
from blendtitan.start.train import is_02
from blendtitan.storage.file_list import read_file_list
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import quietly

_MODEL_PARALLEL = ("tensor", "context", "pipeline")
"""Kinds of parallelism whose ranks share one replica of the model."""

_INTERVALS = {
    "checkpoint.interval": "checkpoint.enable",
    "validation.freq": "validation.enable",
    "metrics.log_freq": None,
}
"""Keys that count steps from 1, and the key that turns them on."""

_LEAST = {"training.steps": 1, "lr_scheduler.warmup_steps": 0}
"""Least values of other keys. With less, training would do nothing, or make no sense."""

_MOST_NUMBERS = 4


def check_run(
    config: Path, arguments: Sequence[str] = (), *, world_size: int = 1, reads_data: bool = True
) -> str:
    """Check the settings of a run, its tokenizer, its data and its output folder.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, which override the file.
        world_size: Processes of the run.
        reads_data: Also check every shard, and the latest checkpoint. For 2,419 shards on a local
            disk this takes 3 s, and rank 0 repeats it, unless ``data_cache_path`` is set. Of
            several machines, only the one with rank 0 should read so many files.

    Raises:
        BlendTitanError: Training would end with the same error.

    Returns:
        A sentence if the run is known to have finished, or an empty text.
    """
    with naming_command_line(config, arguments):
        return _checked(config, arguments, world_size=world_size, reads_data=reads_data)


def _checked(config: Path, arguments: Sequence[str], *, world_size: int, reads_data: bool) -> str:
    if is_02():  # its trainer checks the keys
        _check_prepared(config.parent, {**read_toml(config), **read_arguments(arguments)})
        return ""
    with quietly():  # rank 0 says it again
        values = read_run_keys(config, arguments)
    _check_least(config, values, arguments)
    _check_guards(values)
    if "job.dump_folder" not in read_arguments(arguments):
        check_own_output(config, Path(values["job.dump_folder"]))
    is_replica, job = values["fault_tolerance.enable"], ""
    if is_replica:
        check_lighthouse()
        job = replica_name(values["fault_tolerance.replica_id"])
    # A second job may find other data than the first: this is the better reason.
    if reads_data:
        check_unclaimed(Path(values["job.dump_folder"]), job=job)
    _check_prepared(config.parent, values)
    try:
        ranks = _data_ranks(values, world_size)
    except ConfigError as error:
        if fitting := _fitting(values, world_size):
            error.add_note(f"With these settings a run has {' or '.join(fitting)} processes.")
        raise
    _check_model(values)
    if is_replica:
        check_replicas(values, ranks=ranks, processes=world_size)
        size = samples_per_step(values, ranks=ranks)
        values = {**values, "training.global_batch_size": size}
    finished = ""
    if values["training.dataset"] == "blendcorpus":
        run = read_run(config, ranks=ranks, values=values)
        vocab_size = run.tokenizer().get_vocab_size()
        model_vocab_size(values["model.vocab_size"], tokenizer_vocab_size=vocab_size)
        with run.advising():
            read_file_list(Path(run.blend.data_file_list))
        if reads_data:
            finished = _check_data(run, values)
    elif not values["model.hf_assets_path"]:
        raise ConfigError(
            f"training.dataset is {values['training.dataset']!r}, whose tokenizer TorchTitan reads "
            f"from model.hf_assets_path, which is not set. Set it to a folder with tokenizer.json, "
            f"or set training.dataset = 'blendcorpus'."
        )
    _check_load_step(values)
    _check_output(Path(values["job.dump_folder"]))
    return finished


def check_shards_of(config: Path) -> None:
    """Compare the shards of a run with its tokenizer, as the start of training does.

    Raises:
        BlendTitanError: Training would end with the same error.
    """
    if is_02():
        return
    with quietly():
        run = read_run(config, ranks=1, values=read_run_keys(config, ()))
        with run.advising():
            check = TokenizerCheck(run.blend, run.tokenizer(), action=run.tokenizer_check)
            read_catalog(run.blend, check=check)


def _check_prepared(folder: Path, values: Values) -> None:
    """Check that the data was prepared, from the ``data.toml`` that the run folder has now."""
    keys = "blendcorpus.data_file_list", "training.dataset_path"
    file_list = next((str(values[key]) for key in keys if values.get(key)), "")
    check_prepared(folder, file_list)
    check_current(folder, file_list)


def _check_least(config: Path, values: Values, arguments: Sequence[str]) -> None:
    given = read_arguments(arguments)
    counted = {key: 1 for key, by in _INTERVALS.items() if by is None or values[by]}
    for key, least in {**_LEAST, **counted}.items():
        check_at_least(f"{COMMAND_LINE if key in given else config}: {key}", values[key], least)


def _check_guards(values: Values) -> None:
    keys = [field.name for field in fields(GuardSettings)]
    job_end(GuardSettings(**{key: values[f"guards.{key}"] for key in keys}), started=time.time())


def _data_ranks(values: Values, world_size: int) -> int:
    """Data-parallel ranks among the processes of a run, which divide a step among themselves."""
    ranks = data_ranks(
        world_size,
        replicate=values["parallelism.data_parallel_replicate_degree"],
        shard=values["parallelism.data_parallel_shard_degree"],
        model=math.prod(values[f"parallelism.{kind}_parallel_degree"] for kind in _MODEL_PARALLEL),
    )
    local = values["training.local_batch_size"]
    check_batches(values["training.global_batch_size"], local_batch_size=local, ranks=ranks)
    return ranks


def _fitting(values: Values, world_size: int) -> list[str]:
    """The nearest numbers of processes that the settings allow."""
    found: list[int] = []
    for number in sorted(range(1, 2 * world_size + 1), key=lambda n: abs(n - world_size)):
        with suppress(ConfigError):
            _data_ranks(values, number)
            found.append(number)
    return [f"{number:,}" for number in sorted(found[:_MOST_NUMBERS])]


def _check_model(values: Values) -> None:
    degree = values["parallelism.context_parallel_degree"]
    if degree > 1:  # so there are several ranks, whose agent needs PyTorch in any case
        import torch

        if not torch.accelerator.is_available():
            check_on_cpu(context_parallel_degree=degree)
    sequence_parallel = values["parallelism.enable_sequence_parallel"]
    _check_divided(
        values["training.seq_len"],
        tensor=values["parallelism.tensor_parallel_degree"] if sequence_parallel else 1,
        context=degree,
    )
    if values["experimental.custom_import"] or version("torchtitan") != TORCHTITAN:
        return  # there may be other models
    name, flavor = values["model.name"], values["model.flavor"]
    check_known("model.name", name, MODELS)
    if flavors := MODELS[name]:
        check_known("model.flavor", flavor, flavors)
        check_seq_len(values["training.seq_len"], flavors[flavor].max_seq_len)


def _check_divided(seq_len: int, *, tensor: int, context: int) -> None:
    """Check that ranks can divide a sample: tensor parallel ones, and context parallel ones.

    Context parallelism gives each rank two parts, one from each end of the sample.
    """
    divisor = tensor * (2 * context if context > 1 else 1)
    if seq_len % divisor == 0:
        return
    degrees = {"tensor": tensor, "context": context}
    names = [f"parallelism.{kind}_parallel_degree {n}" for kind, n in degrees.items() if n > 1]
    raise ConfigError(
        f"training.seq_len is {seq_len}, expected a multiple of {divisor} because of "
        f"{' and '.join(names)}. Set training.seq_len to {max(1, seq_len // divisor) * divisor}, "
        f"or choose other degrees."
    )


def _check_data(run: RunConfig, values: Values) -> str:
    check = TokenizerCheck(run.blend, run.tokenizer(), action=run.tokenizer_check)
    if run.blend.has_horizon:  # its index may take long to build
        with quietly(), run.advising():
            read_catalog(run.blend, check=check)
        return ""
    data = data_of_run(run, check=check)
    with quietly():
        lacks_valid = run.validates and data.datasets.valid is None
    if lacks_valid and not run.validation_sets:
        most = max(data.catalog.document_cuts[:, 3].tolist())
        raise EmptySplitError.of_split("valid", run.blend, most_documents=most)
    for each in run.validation_sets if run.validates else ():
        data_of_set(each, run, data.catalog)
    return _check_position(run, values, data.train)


def _check_position(run: RunConfig, values: Values, train: Dataset) -> str:
    """Check that training can continue from the latest checkpoint, and the epochs of the run."""
    stop_slot, step = run.stop_slot, 0
    if values["checkpoint.enable"]:
        folder = checkpoint_folder(values)
        if not _resumes_from_latest(values) or run.segments:
            return ""  # the trainer knows
        if any(folder.glob("step-*")):
            stored = usable_state(folder)
            if stored is None or stored.state_dict is None:
                return ""  # the trainer tells more about damage
            step = stored.step
            train, stop_slot = continued_from(run, train, step, stored.state_dict)
    check_repetition(train, stop_slot, run.max_epochs)
    if step < max(1, run.steps):
        return ""
    return (
        f"Nothing to train: {checkpoint_folder(values)} has step {step:,}, and training.steps is "
        f"{run.steps:,}. To train longer: --training.steps {2 * step}"
    )


def _resumes_from_latest(values: Values) -> bool:
    """Whether a run loads all of its latest checkpoint, if it has one, and nothing else."""
    others = ("initial_load_path", "exclude_from_loading")
    is_plain = not any(values[f"checkpoint.{key}"] for key in others)
    return is_plain and values["checkpoint.load_step"] == -1


def _check_load_step(values: Values) -> None:
    folder, asked = checkpoint_folder(values), values["checkpoint.load_step"]
    if not values["checkpoint.enable"] or asked == -1 or _is_remote(folder):
        return
    complete = [int(path.parent.name[5:]) for path in folder.glob(f"step-[0-9]*/{METADATA}")]
    choose_step(complete, lambda step: None, folder=str(folder), asked=asked, fallback=False)


def _check_output(folder: Path) -> None:
    """Check that the run's output folder can be created and written. Nothing is left in it."""
    if _is_remote(folder):
        return
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError(
            f"job.dump_folder is {str(folder)!r}, expected a folder that can be created and "
            f"written, but {there} cannot be written ({error.strerror}). Choose another one: "
            f"--job.dump_folder PATH"
        ) from error


def _is_remote(folder: Path) -> bool:
    return ":/" in str(folder)  # of a URL, Path joins the slashes
