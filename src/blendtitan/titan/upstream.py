"""The private interfaces of torch and torchtitan that this project relies on.

Written for torchtitan 0.3.0 with torch 2.13 to 2.15; ``tests/titan/test_contract.py`` checks it
against the installed versions. ``blendtitan.titan02`` uses ``prepare`` and ``CpuDevice`` as well.
Private names are called only here. ``BlendCheckpointManager``, ``LossMetrics`` and
``EveryNthLayerAC`` override private methods.
"""

from __future__ import annotations

import inspect
import os
import platform
import resource
import sys
import warnings
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import torch
from torch._utils import _get_available_device_type
from torch.distributed import distributed_c10d

from blendtitan.errors import ConfigError
from blendtitan.visible import drop_logs

if find_spec("torchtitan") is None:  # importing it would choose a device, see ``prepare``
    raise ModuleNotFoundError("No module named 'torchtitan'", name="torchtitan")

if TYPE_CHECKING:
    from collections.abc import Set

    from torch.distributed import ProcessGroup
    from torchtitan.distributed import ParallelDims
    from torchtitan.trainer import Trainer


class Sizes(NamedTuple):
    """The batch arithmetic of a run, in samples; the third is -1 for one pass of every rank."""

    seq_len: int
    local_batch_size: int
    global_batch_size: int


def is_main() -> bool:
    """Whether this is TorchTitan's main branch. A checkout has no version, so its modules tell."""
    return find_spec("torchtitan.components.data") is not None


def sizes_of(config: Trainer.Config) -> Sizes:
    """The batch arithmetic of a configuration."""
    if is_main():
        from blendtitan.titan_main.sizes import sizes_of_tokens

        return Sizes(*sizes_of_tokens(config))
    return Sizes(*(getattr(config.training, name) for name in Sizes._fields))


def prepare() -> None:
    """Adapt torch and torchtitan to this machine. Call this before torchtitan is imported.

    On an older PyTorch, this adds functions that torchtitan calls. Without an accelerator, it makes
    torchtitan use the CPU. ``blendtitan.titan.train`` calls it; other programs must do so.
    """
    # torchtitan has no setting for the device: its modules copy ``device_type`` and
    # ``device_module`` from ``torchtitan.tools.utils`` on import. In torchtitan 0.2, importing that
    # module imports most others, so torch itself must report a CPU during the import.
    if not hasattr(torch.distributed, "set_timeout"):  # before torch 2.15
        torch.distributed.set_timeout = distributed_c10d._set_pg_timeout  # pyright: ignore
    if not has_accelerator():
        with (
            mock.patch("torch._utils._get_available_device_type", return_value="cpu"),
            mock.patch("torch._utils._get_device_module", return_value=CpuDevice),
        ):
            from torchtitan.tools import utils

        utils.device_type = "cpu"
        utils.device_module = CpuDevice  # pyright: ignore[reportAttributeAccessIssue]


def drop_noise() -> None:
    """Drop warnings of torch and torchtitan that mean nothing on this machine."""
    no_flops = "" if has_accelerator() else "|Peak (flops undefined|FLOPS used) for"
    drop_logs(f"initial_load_model_only=True has no effect|Error running lspci{no_flops}")
    warnings.filterwarnings("ignore", r"DTensor .* may not have complete support")
    warnings.filterwarnings("ignore", "To get the last learning rate computed by the scheduler")


ENTRY_POINTS = {"0.2": "blendtitan.titan02.train", "0.3": "blendtitan.titan.train"}


def check_versions(line: str) -> None:
    """Raise a ``ConfigError`` if TorchTitan is of another line, or does not fit PyTorch."""
    from torchtitan import __version__ as found

    if is_main():
        found = "0.3.main"  # which its own packaging calls 0.2.2
    other = {"0.2": "0.3", "0.3": "0.2"}[line]
    if found.startswith(f"{other}."):
        raise ConfigError(
            f"{ENTRY_POINTS[line]} is for TorchTitan {line}, found {found}. Start "
            f"{ENTRY_POINTS[other]}, or install the other: pip install 'torchtitan=={line}.*'"
        )
    if line == "0.3" and torch.__version__ < "2.13.dev0":
        raise ConfigError(
            f"TorchTitan {found} needs PyTorch 2.13 or newer, found {torch.__version__}. Update "
            f"PyTorch, or pip install 'torchtitan==0.2.*' and start {ENTRY_POINTS['0.2']}."
        )


def check_prepared() -> None:
    """Check that torchtitan uses the device of this machine.

    Raises:
        ConfigError: ``prepare`` was not called.
    """
    from torchtitan.tools import utils

    if not has_accelerator() and utils.device_type != "cpu":
        raise ConfigError(
            "no accelerator was found, and torchtitan was not made to use the CPU. Call "
            "blendtitan.titan.prepare() before anything of torchtitan is imported."
        )


def checked(batch: tuple[dict[str, Any], torch.Tensor]) -> tuple[dict[str, Any], torch.Tensor]:
    """The batch, with the shapes of its labels. TorchTitan would make wrong masks of others."""
    inputs, labels = batch
    for name in {"input", "positions"} & inputs.keys():
        if inputs[name].shape != labels.shape:
            raise ConfigError(
                f"the data loader yields {name!r} of shape {tuple(inputs[name].shape)}, expected "
                f"{tuple(labels.shape)}, the shape of the labels. Correct the loader."
            )
    return batch


def has_accelerator() -> bool:
    """Whether PyTorch finds an accelerator."""
    return _get_available_device_type() is not None


class CpuDevice:
    """The CPU, with the functions that torchtitan calls on ``torch.cuda``."""

    # There is one, whose kernels have finished when they return.
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)  # an index, as barriers need it
    set_device = synchronize = empty_cache = staticmethod(lambda *_: None)
    reset_peak_memory_stats = staticmethod(lambda *_: None)  # the kernel keeps the peak

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


def check_torch(config: Trainer.Config) -> None:
    """Check that this PyTorch supports the configuration.

    Raises:
        ConfigError: This PyTorch cannot run TorchTitan's pipelines.
    """
    from torch.distributed.pipelining.schedules import _PipelineSchedule

    knows_microbatches = "arg_mbs" in inspect.signature(_PipelineSchedule.step).parameters
    if config.parallelism.pipeline_parallel_degree > 1 and not knows_microbatches:
        raise ConfigError(
            f"parallelism.pipeline_parallel_degree is "
            f"{config.parallelism.pipeline_parallel_degree}, expected 1 with PyTorch "
            f"{torch.__version__}, whose pipeline schedules TorchTitan 0.3 cannot call. PyTorch "
            f"2.15 can."
        )


def supported_models() -> Set[str]:
    """Names of the models that torchtitan has."""
    from torchtitan.models import _supported_models

    return _supported_models


def owner_of(config: object) -> type[Any]:
    """The class that a configuration builds."""
    return type(config)._owner  # pyright: ignore


def logs_loss(parallel_dims: ParallelDims, *, pp_schedule: str) -> bool:
    """Whether this rank logs losses, as one rank of the pipeline's last stage does."""
    from torchtitan.components.metrics import _get_metrics_rank

    rank = _get_metrics_rank(parallel_dims=parallel_dims, pp_schedule=pp_schedule)
    return torch.distributed.get_rank() == rank


def vocabulary_parallel_losses(
    logits: torch.Tensor, labels: torch.Tensor, group: ProcessGroup, vocab_size: int | None
) -> torch.Tensor:
    """Cross entropy of each label. A group has parts of the logits, float32 ``(N, V / ranks)``."""
    from torchtitan.components.loss import _LossParallelCrossEntropy

    return _LossParallelCrossEntropy.apply(logits, labels, group, vocab_size, "none")
