"""Quantisation and activation checkpointing, as configured in their sections."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torchtitan.components.quantization import Float8LinearConverter, QuantizationConverter
from torchtitan.distributed.activation_checkpoint import FullAC, MemoryBudgetAC, SelectiveAC
from torchtitan.models.common.linear import Linear
from torchtitan.protocols.model_spec import ModelSpec

from blendtitan.errors import ConfigError

if TYPE_CHECKING:
    from blendtitan.titan.settings import ActivationCheckpointSettings, Settings

_ANY_SMALL_MODULE = "auto_filter_small_kn"
"""An entry of ``filter_fqns`` that is not part of a name."""


class TensorwiseFloat8LinearConverter(Float8LinearConverter):
    """TorchTitan's converter, with the recipe and the gathering of weights that it had in 0.2."""

    @dataclass(kw_only=True, slots=True)
    class Config(Float8LinearConverter.Config):
        """TorchTitan's settings, and those of 0.2."""

        # TorchTitan passes the name on to torchao, which knows this one as well.
        recipe_name: Literal["rowwise", "rowwise_with_gw_hp", "tensorwise"] = "rowwise"  # pyright: ignore[reportIncompatibleVariableOverride]
        """Scale by row, by row with gradients of weights in high precision, or by tensor, as
        TorchTitan 0.2 did by default."""

        enable_fsdp_float8_all_gather: bool = False
        """FSDP gathers weights in float8. Needs ``recipe_name = "tensorwise"``."""

    def __init__(self, config: Config) -> None:
        if config.enable_fsdp_float8_all_gather and config.recipe_name != "tensorwise":
            raise ValueError(
                f"enable_fsdp_float8_all_gather is true, but recipe_name is "
                f"{config.recipe_name!r}, expected 'tensorwise'"
            )
        super().__init__(config)
        self._gathers_float8 = config.enable_fsdp_float8_all_gather

    def convert(self, model_config: Any) -> Any:
        """Convert the linear modules of a model's configuration, in place."""
        converted = super().convert(model_config)
        if self._gathers_float8:
            from blendtitan.titan.float8 import gather_in_float8

            gather_in_float8(converted)
        return converted


Converters = Mapping[str, QuantizationConverter.Config]
"""Entry of ``model.converters`` to its configuration, in order."""


def converters_of(settings: "Settings") -> Converters:
    """The configurations of the converters that a run names."""
    compiled = settings.compile.enable and "model" in settings.compile.components
    return {
        name: dataclasses.replace(attrgetter(name)(settings), model_compile_enabled=compiled)
        for name in settings.model.converters
    }


def convert(spec: ModelSpec, converters: Converters) -> None:
    """Apply converters to a model's configuration, in place.

    Raises:
        ConfigError: A converter cannot work on this machine, or names no module of the model.
    """
    for name, converter in converters.items():
        _check_names(spec, name, converter)
        try:
            spec.model = converter.build().convert(spec.model)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"model.converters has {name}: {error}") from error


def _check_names(spec: ModelSpec, name: str, converter: QuantizationConverter.Config) -> None:
    modules = [module for module, *_ in spec.model.traverse(Linear.Config)]
    for each in fields(converter):
        for part in getattr(converter, each.name) if each.name.endswith("fqns") else ():
            if part != _ANY_SMALL_MODULE and not any(part in module for module in modules):
                raise ConfigError(
                    f"{name}.{each.name} has {part!r}, which no linear module of {spec.name} "
                    f"{spec.flavor} contains in its name. Its first and last ones are "
                    f"{', '.join([*modules[:8], modules[-1]])}."
                )


class EveryNthLayerAC(FullAC):
    """Recompute every n-th layer as a whole, as TorchTitan 0.2 did."""

    @dataclass(kw_only=True, slots=True)
    class Config(FullAC.Config):
        """TorchTitan's settings, and the choice of layers."""

        every: int
        """Layers ``every - 1``, ``2 * every - 1`` and so on are recomputed. 0: all."""

    def __init__(self, config: Config, dump_folder: str = "") -> None:
        super().__init__(config, dump_folder)
        self._every = config.every or 1

    def _wrap_block(self, module: nn.Module, *, base_fqn: str | None = None) -> nn.Module:
        layer = int(str(base_fqn).rpartition(".")[2])
        if (layer + 1) % self._every:
            return module
        return super()._wrap_block(module, base_fqn=base_fqn)


Policy = SelectiveAC.Config | FullAC.Config | MemoryBudgetAC.Config


_POLICIES: Mapping[str, type[Policy]] = {
    "selective": SelectiveAC.Config,
    "full": FullAC.Config,
    "memory_budget": MemoryBudgetAC.Config,
}


def activation_checkpointing(settings: "ActivationCheckpointSettings") -> Policy | None:
    """The policy of a run; None if nothing is recomputed.

    Raises:
        ConfigError: ``selective_ac_option`` is neither ``op`` nor a number.
    """
    option = settings.selective_ac_option
    if option != "op" and not option.isdecimal():
        raise ConfigError(
            f"activation_checkpoint.selective_ac_option is {option!r}, expected 'op' or a number "
            f"of layers such as '2'"
        )
    if settings.mode == "none":
        return None
    policy = _POLICIES[settings.mode]
    chosen: dict[str, Any] = {}
    if settings.mode == "selective" and option != "op":
        policy, chosen = EveryNthLayerAC.Config, {"every": int(option)}
    shared = {each.name for each in fields(policy)} & {each.name for each in fields(settings)}
    return policy(**{name: getattr(settings, name) for name in shared}, **chosen)
