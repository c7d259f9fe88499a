"""Activation checkpointing as ``[activation_checkpoint]`` asks for it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from torchtitan.distributed.activation_checkpoint import FullAC, MemoryBudgetAC, SelectiveAC

from blendtitan.titan.settings import ActivationCheckpointSettings


class EveryNthLayerAC(FullAC):
    """Recompute every n-th layer in whole, as TorchTitan 0.2 did."""

    @dataclass(kw_only=True, slots=True)
    class Config(FullAC.Config):
        """TorchTitan's, and which layers."""

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


def activation_checkpointing(settings: ActivationCheckpointSettings) -> Policy | None:
    """The policy of a run; None where nothing is recomputed."""
    if settings.mode == "none":
        return None
    policy = _POLICIES[settings.mode]
    chosen: dict[str, Any] = {}
    if settings.mode == "selective" and settings.selective_ac_option != "op":
        policy, chosen = EveryNthLayerAC.Config, {"every": int(settings.selective_ac_option)}
    shared = {f.name for f in fields(policy)} & {f.name for f in fields(settings)}
    return policy(**{name: getattr(settings, name) for name in shared}, **chosen)
