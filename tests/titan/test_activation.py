"""What ``[activation_checkpoint]`` asks for, and what is recomputed."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torchtitan.distributed.activation_checkpoint import FullAC, MemoryBudgetAC, SelectiveAC

from blendtitan.errors import ConfigError
from blendtitan.titan.converters import EveryNthLayerAC, activation_checkpointing
from blendtitan.titan.toml import read_settings


def policy(**keys: str) -> object:
    arguments = [f"--activation_checkpoint.{key}={text}" for key, text in keys.items()]
    return activation_checkpointing(read_settings(arguments).activation_checkpoint)


def test_each_mode_is_a_policy_of_torchtitan() -> None:
    assert policy(mode="none") is None
    assert policy(mode="full", preserve_rng_state="false") == FullAC.Config(
        preserve_rng_state=False
    )
    assert policy(mode="memory_budget", memory_budget="0.25") == MemoryBudgetAC.Config(
        memory_budget=0.25
    )
    assert policy(force_recompute_mm_shapes_by_fqns="a,b") == SelectiveAC.Config(
        force_recompute_mm_shapes_by_fqns=["a", "b"]
    )


class Layers(nn.Module):
    """Six layers by the names that TorchTitan gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(layer): nn.Linear(2, 2) for layer in range(6)})

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """One layer after the other."""
        for layer in self.layers.values():
            values = layer(values).sin()
        return values


@pytest.mark.parametrize(
    ("option", "recomputed"),
    [("2", [1, 3, 5]), ("3", [2, 5]), ("1", [*range(6)]), ("0", [*range(6)])],
)
def test_a_number_recomputes_every_nth_layer(option: str, recomputed: list[int]) -> None:
    model = Layers()
    config = policy(selective_ac_option=option)
    assert isinstance(config, EveryNthLayerAC.Config)
    config.build(dump_folder="").apply(model)

    wrapped = [isinstance(layer, CheckpointWrapper) for layer in model.layers.values()]
    assert [layer for layer, is_wrapped in enumerate(wrapped) if is_wrapped] == recomputed


def test_recomputing_changes_no_gradient() -> None:
    def gradients(*, recompute: bool) -> list[torch.Tensor | None]:
        torch.manual_seed(0)
        model = Layers()
        if recompute:
            EveryNthLayerAC.Config(every=2).build(dump_folder="").apply(model)
        model(torch.ones(3, 2)).sum().backward()
        return [weight.grad for weight in model.parameters()]

    for plain, recomputed in zip(
        gradients(recompute=False), gradients(recompute=True), strict=True
    ):
        assert plain is not None
        assert torch.equal(plain, recomputed)


def test_another_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"selective_ac_option is 'ops', expected 'op' or a num"):
        policy(selective_ac_option="ops")
