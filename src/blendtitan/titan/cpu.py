"""Training on a machine without an accelerator. Changes nothing on any other machine.

docs/torchtitan.md says what a CPU lacks; ``upstream.CpuDevice`` is the device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import nn
from torch.distributed.fsdp import FSDPModule

from blendtitan.errors import ConfigError
from blendtitan.settings.batches import check_on_cpu
from blendtitan.titan import upstream
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from torchtitan.trainer import Trainer

logger = visible_logger(__name__)

C = TypeVar("C", bound="Trainer.Config")

SpmdBackend = Literal["partial_dtensor", "full_dtensor", "spmd_types"]


def is_used() -> bool:
    """Whether this process trains on the CPU, because there is no accelerator."""
    return not upstream.has_accelerator()


def default_spmd_backend() -> SpmdBackend:
    """The backend used unless one is configured.

    torchtitan's own default, ``spmd_types``, trains on a CPU from torch 2.15 on, and only on some
    meshes; ``partial_dtensor`` does on every mesh that can train there at all.
    """
    return "partial_dtensor" if is_used() else "spmd_types"


def adapted(config: C) -> C:
    """The configuration with the changes that a CPU needs. Logs them.

    Raises:
        ConfigError: The configuration cannot train on a CPU.
    """
    # Imported here because it imports torchtitan.
    from blendtitan.titan.model import use_sdpa

    spec = config.model_spec
    if spec is None or not is_used():
        return config
    upstream.check_prepared()
    check_on_cpu(context_parallel_degree=config.parallelism.context_parallel_degree)
    if config.profiler.enable_memory_snapshot:
        raise ConfigError(
            "profiling.enable_memory_snapshot is true, expected false on a CPU, whose allocator "
            "keeps no history."
        )
    spec = replace(spec, model=copy.deepcopy(spec.model))
    changes = []
    if not upstream.is_main() and use_sdpa(spec):
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

    def __call__(self, model: nn.Module, *arguments: Any, **keywords: Any) -> nn.Module:
        """Parallelise the model as on an accelerator, except for the reduction."""
        model = self.parallelize(model, *arguments, **keywords)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        return model
