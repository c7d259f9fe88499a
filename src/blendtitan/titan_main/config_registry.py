"""Configurations for ``--module blendtitan.titan_main --config NAME``.

Each is TorchTitan's own configuration of that name, changed by ``with_blend``. Their fields are set
on the command line; ``--dataloader.data_file_list`` is needed.
"""

import copy
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from torchtitan.components.data import GrainDataLoader  # pyright: ignore
from torchtitan.models.common.attention import FlexAttention
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

from blendtitan.titan import cpu
from blendtitan.titan.model import MODELS
from blendtitan.titan.tokenizer import BlendTokenizer
from blendtitan.titan.trainer import BlendTrainer
from blendtitan.titan.with_blend import blended
from blendtitan.titan_main.attention import DenseAttention
from blendtitan.titan_main.data import FlatDataLoader, FlatValidator


def with_blend(config: Trainer.Config, loader: FlatDataLoader.Config) -> BlendTrainer.Config:
    """A copy of a TorchTitan configuration that trains on a blend, also on a CPU.

    See ``blendtitan.titan.with_blend``, which is for TorchTitan 0.3.
    """
    config = blended(config, loader, validator=FlatValidator.Config, text=GrainDataLoader.Config)
    if config.model_spec is not None and cpu.is_used():
        config.model_spec = _with_dense_attention(config.model_spec)
        config.parallelism.spmd_backend = cpu.default_spmd_backend()
    return config


def _with_dense_attention(spec: ModelSpec) -> ModelSpec:
    spec = copy.copy(spec)
    spec.model = copy.deepcopy(spec.model)
    for _, found, parent, name in list(spec.traverse(FlexAttention.Config)):
        block_size: Any = getattr(found, "block_size", None)
        setattr(parent, str(name), DenseAttention.Config(block_size=block_size))  # pyright: ignore
    return spec


def _registries() -> Iterator[ModuleType]:
    for model in MODELS:
        try:
            yield importlib.import_module(f"torchtitan.models.{model}.config_registry")
        except ModuleNotFoundError:
            continue  # it needs a package that is not installed


def _named(function: Callable[[], Trainer.Config]) -> BlendTrainer.Config:
    config = function()
    config.tokenizer = BlendTokenizer.Config()
    return with_blend(config, FlatDataLoader.Config())


def __getattr__(name: str) -> Callable[[], BlendTrainer.Config]:
    for registry in () if name.startswith("_") else _registries():
        function: Any = getattr(registry, name, None)
        if function is not None:
            return partial(_named, function)
    raise AttributeError(name)
