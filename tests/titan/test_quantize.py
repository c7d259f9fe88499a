"""``model.converters``: which changes of the model are made, and how each is configured."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest
from torchtitan.components.quantization import QuantizationConverter
from torchtitan.models.common.linear import Linear

from blendtitan.errors import ConfigError
from blendtitan.titan.converters import convert, converters_of
from blendtitan.titan.model import build_model_spec
from blendtitan.titan.toml import read_settings


class WithBias(QuantizationConverter):
    """Gives a bias to the linear modules that are not left out: no hardware can refuse it."""

    @dataclass(kw_only=True, slots=True)
    class Config(QuantizationConverter.Config):
        """As TorchTitan's converters name modules."""

        filter_fqns: list[str] = field(default_factory=list)

    def __init__(self, config: Config) -> None:
        self.left_out = config.filter_fqns

    def convert(self, model_config: Any) -> Any:
        """Change it in place."""
        for name, linear, _, _ in model_config.traverse(Linear.Config):
            linear.bias = not any(part in name for part in self.left_out)
        return model_config


def test_converters_are_those_of_the_list_in_its_order() -> None:
    settings = read_settings(
        [
            *["--model.converters", "quantize.grouped_mm.mx,quantize.linear.float8"],
            *["--quantize.linear.float8.recipe_name", "rowwise_with_gw_hp"],
            *["--quantize.grouped_mm.mx.pad_multiple", "128"],
        ]
    )
    mx, float8 = converters_of(settings).items()

    assert (mx[0], float8[0]) == ("quantize.grouped_mm.mx", "quantize.linear.float8")
    assert mx[1].to_dict()["pad_multiple"] == 128
    assert float8[1].to_dict()["recipe_name"] == "rowwise_with_gw_hp"


@pytest.mark.parametrize(
    ("arguments", "compiled"),
    [
        ([], False),
        (["--compile.enable"], True),
        (["--compile.enable", "--compile.components", "loss"], False),
    ],
)
def test_converters_know_whether_the_model_is_compiled(
    arguments: list[str], compiled: bool
) -> None:
    settings = read_settings(["--model.converters", "float8", *arguments])
    (converter,) = converters_of(settings).values()

    assert converter.model_compile_enabled == compiled


def test_the_model_is_converted_except_for_excluded_modules() -> None:
    spec = build_model_spec("llama3", "debugmodel", vocab_size=128)
    convert(spec, {"quantize.linear.float8": WithBias.Config(filter_fqns=["lm_head", "w2"])})

    without = [name for name, linear, _, _ in spec.model.traverse(Linear.Config) if not linear.bias]
    assert without == ["lm_head", *(f"layers.{layer}.feed_forward.w2" for layer in range(6))]


def test_a_name_that_no_module_has_is_refused() -> None:
    """TorchTitan would convert what was to be left out."""
    spec = build_model_spec("llama3", "debugmodel", vocab_size=128)
    with pytest.raises(
        ConfigError, match=r"linear\.float8\.filter_fqns has 'head2', which no linear .*lm_head"
    ):
        convert(spec, {"quantize.linear.float8": WithBias.Config(filter_fqns=["head2"])})


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_a_missing_package_is_named() -> None:
    spec = build_model_spec("llama3", "debugmodel", vocab_size=128)
    converters = converters_of(read_settings(["--model.converters", "float8"]))
    with pytest.raises(ConfigError, match=r"model\.converters has quantize.linear.float8: torchao"):
        convert(spec, converters)
