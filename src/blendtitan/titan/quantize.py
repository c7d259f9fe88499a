"""Changes to the model's modules that ``model.converters`` asks for."""

import dataclasses
from collections.abc import Mapping
from operator import attrgetter

from torchtitan.components.quantization import QuantizationConverter
from torchtitan.models.common.linear import Linear
from torchtitan.protocols.model_spec import ModelSpec

from blendtitan.errors import ConfigError
from blendtitan.titan.settings import Settings

Converters = Mapping[str, QuantizationConverter.Config]
"""Entry of ``model.converters`` to its configuration, in order."""

_ANY_SMALL_MODULE = "auto_filter_small_kn"
"""An entry of ``filter_fqns`` that is no part of a name."""


def converters_of(settings: Settings) -> Converters:
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
    for field in dataclasses.fields(converter):
        if not field.name.endswith("fqns"):
            continue
        for part in getattr(converter, field.name):
            if part != _ANY_SMALL_MODULE and not any(part in module for module in modules):
                raise ConfigError(
                    f"{name}.{field.name} has {part!r}, which no linear module of {spec.name} "
                    f"{spec.flavor} contains in its name. Its first and last ones are "
                    f"{', '.join([*modules[:8], modules[-1]])}."
                )
