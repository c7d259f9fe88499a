"""Turns the configuration of a run into that of one replica of a fault-tolerant job."""

import os
from dataclasses import fields, replace
from typing import Any, TypeVar

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.order.replicas import check_units
from blendtitan.settings.batches import data_ranks
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan_ft.checkpoint import ReplicaCheckpointManager
from blendtitan.titan_ft.loader import ReplicaDataLoader
from blendtitan.titan_ft.metrics import ReplicaMetrics
from blendtitan.titan_ft.settings import FaultToleranceSettings
from blendtitan.titan_ft.trainer import ReplicaTrainer

T = TypeVar("T")


def with_replicas(
    config: BlendTrainer.Config, settings: FaultToleranceSettings
) -> ReplicaTrainer.Config:
    """The configuration of one replica.

    Raises:
        ConfigError: The run cannot be trained by replicas.
    """
    _check(config, settings)
    training = config.training
    unit = training.local_batch_size * _ranks(config)
    if training.global_batch_size < 0:
        training = replace(training, global_batch_size=unit * settings.group_size)
    check_units(
        settings.batch_policy,
        full_units=training.global_batch_size // unit,
        unit=unit,
        all_replicas=settings.group_size,
    )
    parts = {
        "checkpoint": _as(ReplicaCheckpointManager.Config, config.checkpoint),
        "dataloader": _as(ReplicaDataLoader.Config, config.dataloader),
        "metrics": _as(ReplicaMetrics.Config, config.metrics),
        "training": training,
        "fault_tolerance": settings,
    }
    return ReplicaTrainer.Config(**_fields(config) | parts)


def _as(kind: type[T], config: Any) -> T:
    return kind(**_fields(config))


def _fields(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _ranks(config: BlendTrainer.Config) -> int:
    parallelism = config.parallelism
    return data_ranks(
        int(os.environ.get("WORLD_SIZE", "1")),
        replicate=parallelism.data_parallel_replicate_degree,
        shard=parallelism.data_parallel_shard_degree,
        model=parallelism.tensor_parallel_degree
        * parallelism.context_parallel_degree
        * parallelism.pipeline_parallel_degree,
    )


def _check(config: BlendTrainer.Config, settings: FaultToleranceSettings) -> None:
    size = settings.group_size
    check_at_least("fault_tolerance.group_size", size, 1)
    for name, number, first, last in (
        ("replica_id", settings.replica_id, 0, size - 1),
        ("min_replica_size", settings.min_replica_size, 1, size),
    ):
        if not first <= number <= last:
            raise ConfigError(
                f"fault_tolerance.{name} is {number}, expected {first} to {last} with "
                f"fault_tolerance.group_size = {size}"
            )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ConfigError(
            f"a replica has {processes} processes, expected one: a state that is split between "
            f"processes cannot be given to a replica that joins yet. Start each replica with "
            f"--nproc 1, on a GPU of its own."
        )
    if settings.semi_sync_method is not None:
        raise ConfigError(
            f"fault_tolerance.semi_sync_method is {settings.semi_sync_method!r}, expected none: "
            f"torchft decides only after the local steps whose results count, so their samples "
            f"could be lost or read twice. Leave it out: replicas then exchange gradients in every "
            f"step."
        )
    if not config.checkpoint.enable or config.checkpoint.create_seed_checkpoint:
        raise ConfigError(
            "fault_tolerance.enable = true needs checkpoint.enable = true and "
            "checkpoint.create_seed_checkpoint = false: a replica that joins receives what a "
            "checkpoint holds, and one that starts after the last step must see that it is done."
        )
    if not isinstance(config.dataloader, BlendCorpusDataLoader.Config):
        raise ConfigError(
            "fault_tolerance.enable = true needs training.dataset = 'blendcorpus': the loaders of "
            "TorchTitan's datasets do not follow the replicas."
        )
    spec = config.model_spec
    if spec is not None and spec.post_optimizer_build_fn is not None:
        raise ConfigError(
            f"model.name = {spec.name!r} cannot be trained with fault_tolerance.enable = true: its "
            f"experts are balanced outside the optimizer, separately in each replica."
        )
