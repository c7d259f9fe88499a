"""What TorchTitan 0.3 expects of newer releases of PyTorch than 2.13, which we support too."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch.distributed import distributed_c10d
from torch.distributed.pipelining.schedules import _PipelineSchedule

from blendtitan.errors import ConfigError

if TYPE_CHECKING:
    from torchtitan.trainer import Trainer


def complete() -> None:
    """Give a function of PyTorch the name that TorchTitan calls it by."""
    if not hasattr(torch.distributed, "set_timeout"):
        torch.distributed.set_timeout = distributed_c10d._set_pg_timeout  # pyright: ignore


def check(config: Trainer.Config) -> None:
    """Check that this PyTorch can do what is configured.

    Raises:
        ConfigError: It cannot run TorchTitan's pipelines.
    """
    knows_microbatches = "arg_mbs" in inspect.signature(_PipelineSchedule.step).parameters
    if config.parallelism.pipeline_parallel_degree > 1 and not knows_microbatches:
        raise ConfigError(
            f"parallelism.pipeline_parallel_degree is "
            f"{config.parallelism.pipeline_parallel_degree}, expected 1 with PyTorch "
            f"{torch.__version__}, whose pipeline schedules TorchTitan 0.3 cannot call. PyTorch "
            f"2.15 can."
        )
