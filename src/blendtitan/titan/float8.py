"""Float8 weights that FSDP gathers in float8, as TorchTitan 0.2 did. Needs torchao."""

from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torchao.float8.fsdp_utils import (  # pyright: ignore[reportMissingImports]
    WeightWithDynamicFloat8CastTensor,
)
from torchtitan.components.quantization import Float8Linear
from torchtitan.models.common.linear import Linear

assert Float8Linear is not None, "TorchTitan finds torchao"


class GatheredFloat8Linear(Float8Linear):
    """A float8 linear module whose weight FSDP casts before it gathers it."""

    @dataclass(kw_only=True, slots=True)
    class Config(Float8Linear.Config):
        """TorchTitan's."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        # As torchao's ``Float8Linear.from_float``, which TorchTitan 0.3 does not call.
        weight = WeightWithDynamicFloat8CastTensor(
            self.weight.detach(),
            self.linear_mm_config,
            self.config.cast_config_weight.target_dtype,
        )
        self.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        self.register_state_dict_post_hook(_save_plain_weight)


def _save_plain_weight(
    _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any
) -> None:
    """Let a checkpoint hold the weight as any other, so that it loads without torchao.

    It shares the weight's memory, so that a checkpoint may be read into it.
    """
    name = f"{prefix}weight"
    state[name] = _plain(state[name])


def _plain(weight: Any) -> Any:
    if isinstance(weight, DTensor):
        return DTensor.from_local(
            _plain(weight._local_tensor),
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )
    return weight._tensor if isinstance(weight, WeightWithDynamicFloat8CastTensor) else weight


def gather_in_float8(model_config: Any) -> None:
    """Replace the float8 linear modules of a model's configuration, in place."""
    for _, linear, parent, name in model_config.traverse(Linear.Config):
        if isinstance(linear, Float8Linear.Config):
            values = {each.name: getattr(linear, each.name) for each in fields(linear)}
            replaced = GatheredFloat8Linear.Config(**values)
            if isinstance(parent, list):
                parent[name] = replaced
            else:
                setattr(parent, name, replaced)
