"""What TorchTitan needs on a machine without an accelerator. Does nothing on any other machine.

TorchTitan assumes an accelerator in five places. Each has its answer here:

| TorchTitan                                     | on a CPU                                     |
|------------------------------------------------|----------------------------------------------|
| falls back to the device type ``cuda``         | ``choose_device``                            |
| asks the device for its name, memory and index | ``CpuDevice``                                |
| FlexAttention and varlen attention             | SDPA: neither has a CPU backward             |
| CUDA graphs                                    | ``training.disable_cuda_graphs``             |
| FSDP scales gradients inside the reduction     | plain sums: gloo has no pre-multiplied sum   |

Its default ``spmd_backend`` also needs a newer torch on a CPU, see ``default_spmd_backend``.
"""

from __future__ import annotations

import copy
import os
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch._utils import _get_available_device_type
from torch.distributed.fsdp import FSDPModule

from blendtitan.errors import ConfigError
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.trainer import BlendTrainer

logger = visible_logger(__name__)

SpmdBackend = Literal["partial_dtensor", "full_dtensor", "spmd_types"]


def is_used() -> bool:
    """Whether this process trains on the CPU, because it finds no accelerator."""
    return _get_available_device_type() is None


class CpuDevice:
    """The CPU, with the functions that torchtitan calls on ``torch.cuda``."""

    @staticmethod
    def device_count() -> int:
        """Every process sees one CPU."""
        return 1

    @staticmethod
    def current_device() -> int:
        """An index, as barriers want it. ``torch.cpu`` returns the string ``cpu``."""
        return 0

    @staticmethod
    def set_device(device: torch.device) -> None:
        """There is only one."""

    @staticmethod
    def synchronize() -> None:
        """CPU kernels have finished when they return."""

    @staticmethod
    def get_device_name(device: torch.device) -> str:
        """Name shown in the log."""
        return platform.processor() or platform.machine()

    @staticmethod
    def get_device_properties(device: torch.device) -> SimpleNamespace:
        """Total memory of the machine, in bytes."""
        return SimpleNamespace(
            total_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        )

    @staticmethod
    def memory_stats(device: torch.device) -> dict[str, int]:
        """Peak memory of this process, in bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak * 1024
        return {"active_bytes.all.peak": peak_bytes, "reserved_bytes.all.peak": peak_bytes}

    @staticmethod
    def reset_peak_memory_stats() -> None:
        """The kernel keeps the peak of a process's whole life."""

    @staticmethod
    def empty_cache() -> None:
        """The CPU allocator keeps none."""


def choose_device() -> None:
    """Make torchtitan use the CPU. Call it before other modules of torchtitan are imported.

    They copy ``device_type`` and ``device_module`` from ``torchtitan.tools.utils`` when they are
    imported, and torchtitan has no setting for either.
    """
    if is_used():
        from torchtitan.tools import utils

        utils.device_type = "cpu"
        utils.device_module = CpuDevice  # pyright: ignore[reportAttributeAccessIssue]


def default_spmd_backend() -> SpmdBackend:
    """The backend used unless one is configured.

    torchtitan's own default, ``spmd_types``, trains on a CPU from torch 2.15 on, and only on some
    meshes; ``partial_dtensor`` does on every mesh that can train there at all.
    """
    return "partial_dtensor" if is_used() else "spmd_types"


def adapted(config: BlendTrainer.Config) -> BlendTrainer.Config:
    """A configuration that trains on a CPU as the given one does; what differs is logged.

    On a machine with an accelerator, it is the given one.

    Raises:
        ConfigError: It cannot train on a CPU.
    """
    # Imported here because importing it needs the device to be chosen.
    from blendtitan.titan.model import use_sdpa

    spec = config.model_spec
    if spec is None or not is_used():
        return config
    if config.parallelism.context_parallel_degree > 1:
        raise ConfigError(
            f"parallelism.context_parallel_degree is "
            f"{config.parallelism.context_parallel_degree}, expected 1 on a CPU, whose attention "
            f"PyTorch cannot split."
        )
    if config.profiler.enable_memory_snapshot:
        raise ConfigError(
            "profiling.enable_memory_snapshot is true, expected false on a CPU, whose allocator "
            "keeps no history."
        )
    spec = replace(spec, model=copy.deepcopy(spec.model))
    changes = []
    if use_sdpa(spec):
        changes.append("SDPA attention")
    if not config.training.disable_cuda_graphs:
        changes.append("no CUDA graphs")
    if not isinstance(spec.parallelize_fn, SumReduction):
        spec.parallelize_fn = SumReduction(spec.parallelize_fn)
        changes.append("gradients reduced by plain sums")
    if changes:
        logger.warning("No accelerator found: training on the CPU, with %s.", ", ".join(changes))
    return replace(
        config, model_spec=spec, training=replace(config.training, disable_cuda_graphs=True)
    )


@dataclass(frozen=True)
class SumReduction:
    """A model's ``parallelize_fn`` whose FSDP modules reduce gradients by plain sums."""

    parallelize: Callable[..., nn.Module]

    def __call__(self, model: nn.Module, **arguments: Any) -> nn.Module:
        """Parallelise the model as it would be on an accelerator, but for the reduction."""
        model = self.parallelize(model, **arguments)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        return model
