"""Turns the configuration of a run into that of one replica of a fault-tolerant job."""

import os
from dataclasses import fields, replace
from typing import Any, TypeVar

from blendtitan.settings.batches import data_ranks
from blendtitan.settings.replicas import check_replicas, has_experts, samples_per_step
from blendtitan.titan.dataloader import BlendCorpusDataLoader
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan_ft.checkpoint import ReplicaCheckpointManager
from blendtitan.titan_ft.loader import ReplicaDataLoader
from blendtitan.titan_ft.metrics import ReplicaMetrics
from blendtitan.titan_ft.semi_sync import SemiSyncTrainer
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
    ranks, values = _ranks(config), _values(config, settings)
    check_replicas(values, ranks=ranks, processes=_processes())
    spec = config.model_spec
    if spec is not None and spec.post_optimizer_build_fn is not None:
        raise has_experts(spec.name)
    size = samples_per_step(values, ranks=ranks)
    replicas = {"batch_policy": settings.batch_policy, "group_size": settings.group_size}
    parts = {
        "checkpoint": _as(ReplicaCheckpointManager.Config, config.checkpoint),
        "dataloader": _as(ReplicaDataLoader.Config, config.dataloader, **replicas),
        "metrics": _as(ReplicaMetrics.Config, config.metrics),
        "training": replace(config.training, global_batch_size=size),
        "fault_tolerance": settings,
    }
    is_semi_sync = settings.semi_sync_method is not None
    kind = SemiSyncTrainer if is_semi_sync else ReplicaTrainer
    return kind.Config(**_fields(config) | parts)


def _values(config: BlendTrainer.Config, settings: FaultToleranceSettings) -> dict[str, Any]:
    """What ``check_replicas`` reads, by key of the TOML file."""
    loader, spec, parallelism = config.dataloader, config.model_spec, config.parallelism
    reads_blend = isinstance(loader, BlendCorpusDataLoader.Config)
    values = {f"fault_tolerance.{name}": value for name, value in _fields(settings).items()}
    values |= {f"parallelism.{name}": value for name, value in _fields(parallelism).items()}
    return values | {
        "checkpoint.enable": config.checkpoint.enable,
        "checkpoint.create_seed_checkpoint": config.checkpoint.create_seed_checkpoint,
        "training.dataset": "blendcorpus" if reads_blend else type(loader).__qualname__,
        "training.local_batch_size": config.training.local_batch_size,
        "training.global_batch_size": config.training.global_batch_size,
        "blendcorpus.data_stage_path": loader.data_stage_path if reads_blend else None,
        "training.batch_schedule": loader.batch_schedule if reads_blend else (),
        "checkpoint.interval": config.checkpoint.interval,
        "metrics.log_freq": config.metrics.log_freq,
        "validation.enable": config.validator.enable,
        "validation.freq": config.validator.freq,
        "model.name": "" if spec is None else spec.name,
    }


def _as(kind: type[T], config: Any, **more: Any) -> T:
    return kind(**_fields(config) | more)


def _fields(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _ranks(config: BlendTrainer.Config) -> int:
    parallelism = config.parallelism
    return data_ranks(
        _processes(),
        replicate=parallelism.data_parallel_replicate_degree,
        shard=parallelism.data_parallel_shard_degree,
        model=parallelism.tensor_parallel_degree
        * parallelism.context_parallel_degree
        * parallelism.pipeline_parallel_degree,
    )


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
