"""``model.converters``: which changes of the model are made, and how each is configured."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchtitan.components.quantization import QuantizationConverter
from torchtitan.models.common.linear import Linear

from blendtitan.errors import ConfigError
from blendtitan.titan.converters import convert, converters_of
from blendtitan.titan.model import build_model_spec
from blendtitan.titan.toml import read_settings
from tests.titan.conftest import Job


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


# --- float8 by tensor -------------------------------------------------------------------------

FLOAT8 = "quantize.linear.float8"
BY_TENSOR = [
    *["--model.converters", FLOAT8, f"--{FLOAT8}.emulate", f"--{FLOAT8}.filter_fqns", "lm_head"],
    *[f"--{FLOAT8}.recipe_name", "tensorwise"],
]
GATHERED = [*BY_TENSOR, f"--{FLOAT8}.enable_fsdp_float8_all_gather"]
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")


def float8_model(*arguments: str) -> nn.Module:
    """The debug model with emulated float8, and the same weights each time."""
    spec = build_model_spec("llama3", "debugmodel", vocab_size=128)
    convert(spec, converters_of(read_settings([*arguments])))
    model = spec.model.build()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.02)
    return model


def test_rows_are_not_gathered_in_float8() -> None:
    """A row has a scale of its own, which is not gathered."""
    by_row = [*GATHERED, f"--{FLOAT8}.recipe_name", "rowwise"]
    with pytest.raises(ConfigError, match=r"recipe_name is 'rowwise', expected 'tensorwise'"):
        float8_model(*by_row)


@needs_torchao
def test_gathered_weights_are_cast_by_fsdp_and_saved_as_any_other() -> None:
    """A checkpoint is loaded without torchao, or with another setting."""
    plain, gathered = float8_model(*BY_TENSOR), float8_model(*GATHERED)
    cast = [name for name, weight in gathered.named_parameters() if type(weight.data) is not Tensor]

    assert len(cast) == 30  # two of attention and three of the feed-forward, in six layers
    assert all(hasattr(gathered.get_parameter(name), "fsdp_pre_all_gather") for name in cast)
    assert not any(hasattr(weight, "fsdp_pre_all_gather") for weight in plain.parameters())

    saved = gathered.state_dict()
    assert saved.keys() == plain.state_dict().keys()
    assert all(type(weight) is Tensor for weight in saved.values())
    saved["layers.0.feed_forward.w1.weight"].zero_()  # as a checkpoint is read: in place
    assert gathered.get_parameter("layers.0.feed_forward.w1.weight").abs().sum() == 0


@needs_torchao
@pytest.mark.slow
def test_gathering_in_float8_changes_no_loss_and_can_be_turned_off(
    job: Job, tmp_path: Path
) -> None:
    """A weight has the same scale before FSDP gathers it and after."""
    job.run(*GATHERED, "--training.steps", "2", processes=2)
    job.run(*BY_TENSOR, "--training.steps", "4", processes=2)
    resumed = job.losses("training", 0) | job.losses("training", 1)
    job.run(
        *BY_TENSOR,
        "--training.steps",
        "4",
        "--job.dump_folder",
        str(tmp_path / "other"),
        processes=2,
    )

    assert job.losses("training").keys() == {1, 2, 3, 4}
    assert resumed == pytest.approx(job.losses("training"), rel=1e-5)
