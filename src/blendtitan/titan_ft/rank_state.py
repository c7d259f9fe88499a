"""The state of one rank of a replica, which the same rank of another replica receives.

torchft decides for each rank by itself whether it sends or receives: at the first step, one rank of
a replica may send while another one receives. So nothing here waits for other ranks. TorchTitan's
own state of a model does: its hooks gather the weights that they split, such as a fused QKV.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torchtitan.components.checkpoint import MODEL, OPTIMIZER

State = dict[str, Any]


def rank_state(parts: Mapping[str, Any], models: Sequence[torch.nn.Module]) -> State:
    """The state of this rank: its shards of the model and of the optimizer, and the other parts.

    Args:
        parts: The parts of a checkpoint.
        models: The parts of the model.
    """
    state = {name: part.state_dict() for name, part in parts.items() if name != MODEL}
    state[OPTIMIZER] = {key: local_part(each) for key, each in state[OPTIMIZER].items()}
    return state | {MODEL: local_tensors(models)}


@torch.no_grad()
def load_rank_state(
    state: State, parts: Mapping[str, Any], models: Sequence[torch.nn.Module]
) -> None:
    """Load the state of the same rank of another replica; see ``rank_state``."""
    received: State = state.pop(MODEL)
    for name, tensor in local_tensors(models).items():
        tensor.copy_(received[name])
    own: State = parts[OPTIMIZER].state_dict()
    for key, shard in state[OPTIMIZER].items():
        if isinstance(own[key], DTensor):
            local_part(own[key]).copy_(shard)
            state[OPTIMIZER][key] = own[key]
    for name, part in state.items():
        parts[name].load_state_dict(part)


def local_tensors(models: Sequence[torch.nn.Module]) -> dict[str, torch.Tensor]:
    """This rank's parts of parameters and buffers, which share their memory."""
    found: dict[str, torch.Tensor] = {}
    for number, model in enumerate(models):
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # after a validation, some are still gathered
        for name, tensor in chain(model.named_parameters(), model.named_buffers()):
            found[f"{number}.{name}"] = local_part(tensor.detach())
    return found


def local_part(value: Any) -> Any:
    """This rank's part of a tensor, which shares its memory. Other values as they are."""
    return value.to_local() if isinstance(value, DTensor) else value
