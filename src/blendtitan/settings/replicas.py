"""``[fault_tolerance]``: the runs that replicas can train.

The check before start and the trainer share it, so both refuse the same runs in the same words.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError, requires_extra
from blendtitan.order.replicas import check_units
from blendtitan.settings.batch_changes import batch_changes
from blendtitan.settings.known_models import WITH_EXPERTS

LIGHTHOUSE = "TORCHFT_LIGHTHOUSE"
"""Environment variable with the address of the lighthouse, such as ``http://node0:29510``."""

SEMI_SYNC_METHODS = ("diloco", "local_sgd")

_LENGTH = "fault_tolerance.sync_steps"

Values = Mapping[str, Any]


def replica_name(replica_id: int) -> str:
    """The name of a replica in its claim on the folder that all replicas of a job share."""
    return f"torchft job {os.environ.get(LIGHTHOUSE)} replica {replica_id}"


def check_lighthouse() -> str:
    """The address of the job's lighthouse.

    Raises:
        ConfigError: It is not set.
        MissingExtraError: torchft is not installed.
    """
    with requires_extra("torchft", "fault_tolerance.enable = true"):
        if find_spec("torchft") is None:
            raise ModuleNotFoundError("No module named 'torchft'", name="torchft")
    address = os.environ.get(LIGHTHOUSE)
    if not address:
        raise ConfigError(
            f"{LIGHTHOUSE} is not set, expected the address of the job's lighthouse, such as "
            f"http://node0:29510. Start one: torchft_lighthouse --min_replicas 1"
        )
    return address


def check_replicas(values: Values, *, ranks: int, processes: int) -> None:
    """Check that replicas can train a run.

    Args:
        values: The values of all keys.
        ranks: Data-parallel ranks of a replica.
        processes: Processes of a replica.

    Raises:
        ConfigError: They cannot.
    """
    size = values["fault_tolerance.group_size"]
    check_at_least("fault_tolerance.group_size", size, 1)
    for name, first, last in (("replica_id", 0, size - 1), ("min_replica_size", 1, size)):
        number = values[f"fault_tolerance.{name}"]
        if not first <= number <= last:
            raise ConfigError(
                f"fault_tolerance.{name} is {number}, expected {first} to {last} with "
                f"fault_tolerance.group_size = {size}"
            )
    _check_processes(values, processes)
    _check_rounds(values)
    if not values["checkpoint.enable"] or values["checkpoint.create_seed_checkpoint"]:
        raise ConfigError(
            "fault_tolerance.enable = true needs checkpoint.enable = true and "
            "checkpoint.create_seed_checkpoint = false: a replica that joins receives the contents "
            "of a checkpoint, and one that starts after the last step must see that the run is "
            "complete."
        )
    if values["training.dataset"] != "blendcorpus":
        raise ConfigError(
            "fault_tolerance.enable = true needs training.dataset = 'blendcorpus': with "
            "TorchTitan's own datasets, slots cannot be divided again when a replica fails."
        )
    if values["blendcorpus.data_stage_path"] is not None:
        raise ConfigError(
            "blendcorpus.data_stage_path cannot be used with fault_tolerance.enable = true: which "
            "slots a node reads depends on the replicas that take part. Delete it."
        )
    if values["model.name"] in WITH_EXPERTS:
        raise has_experts(values["model.name"])
    _check_sizes(values, ranks=ranks)


def samples_per_step(values: Values, *, ranks: int) -> int:
    """Samples of a step of all replicas: by default, one micro batch of every replica."""
    size = values["training.global_batch_size"]
    unit = values["training.local_batch_size"] * ranks
    return size if size >= 0 else unit * values["fault_tolerance.group_size"]


def has_experts(name: str) -> ConfigError:
    """The error for a model whose experts each replica would balance separately."""
    return ConfigError(
        f"model.name = {name!r} cannot be trained with fault_tolerance.enable = true: its experts "
        f"are balanced outside the optimizer, separately in each replica."
    )


def _check_sizes(values: Values, *, ranks: int) -> None:
    sizes = {"training.global_batch_size": samples_per_step(values, ranks=ranks)}
    for number, change in enumerate(batch_changes(values["training.batch_schedule"]), start=1):
        sizes[f"training.batch_schedule {number}: global_batch_size"] = change.global_batch_size
    unit = values["training.local_batch_size"] * ranks
    for key, samples in sizes.items():
        check_units(
            values["fault_tolerance.batch_policy"],
            key=key,
            full_units=samples // unit,
            unit=unit,
            all_replicas=values["fault_tolerance.group_size"],
        )


def _check_processes(values: Values, processes: int) -> None:
    """Check that the processes of a replica share one copy of the model, by FSDP."""
    if processes == 1:
        return
    for kind in (
        "data_parallel_replicate",
        "tensor_parallel",
        "context_parallel",
        "pipeline_parallel",
    ):
        degree = values[f"parallelism.{kind}_degree"]
        if degree != 1:
            raise ConfigError(
                f"parallelism.{kind}_degree is {degree}, expected 1 with "
                f"fault_tolerance.enable = true: the processes of a replica share one model only "
                f"by FSDP, parallelism.data_parallel_shard_degree"
            )
    if values["fault_tolerance.semi_sync_method"] is not None:
        raise ConfigError(
            f"a replica has {processes} processes, expected one with "
            f"fault_tolerance.semi_sync_method: the outer optimizer is not split between "
            f"processes. Start each replica with --nproc 1."
        )


def _check_rounds(values: Values) -> None:
    """Check that checkpoints, validations and metrics come at the end of a round."""
    method, length = values["fault_tolerance.semi_sync_method"], values[_LENGTH]
    if method is None:
        return
    if method not in SEMI_SYNC_METHODS:
        raise ConfigError(
            f"fault_tolerance.semi_sync_method is {method!r}, expected "
            f"{' or '.join(map(repr, SEMI_SYNC_METHODS))}, or none, to exchange gradients in every "
            f"step"
        )
    check_at_least(_LENGTH, length, 1)
    for key in ("checkpoint.interval", "metrics.log_freq", "validation.freq"):
        is_used = key != "validation.freq" or values["validation.enable"]
        if is_used and values[key] % length:
            raise ConfigError(
                f"{key} is {values[key]:,}, expected a multiple of {_LENGTH} = {length:,}: with "
                f"fault_tolerance.semi_sync_method = {method!r}, the replicas have different "
                f"models within a round"
            )
