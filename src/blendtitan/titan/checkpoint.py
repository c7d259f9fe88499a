"""TorchTitan's checkpoints, of this project's runs and of runs with another data loader."""

from dataclasses import dataclass
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.base import DATALOADER

from blendtitan.state import STATE_KEY

_MISSING_KEY = f"Missing key in checkpoint state_dict: {DATALOADER}.{STATE_KEY}."
"""How PyTorch refuses, on every rank and before it reads anything, a checkpoint without it."""

_SIZE_MISMATCH = "Size mismatch between saved"
"""How it refuses a tensor of another shape."""

_VOCABULARY_HINT = (
    "The checkpoint's model has other sizes. If only the first dimension of the embedding differs, "
    "set model.vocab_size to that of the checkpoint; left out, it follows the tokenizer."
)


class BlendCheckpointManager(CheckpointManager):
    """Also loads checkpoints that hold no state of our loader, which then stays unloaded."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """``[checkpoint]``: TorchTitan's."""

    def dcp_load(self, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Load the checkpoint into ``state_dict``, without the loader's state if it has none."""
        try:
            super().dcp_load(state_dict, *args, **kwargs)
        except CheckpointException as error:
            if _SIZE_MISMATCH in str(error):
                error.add_note(_VOCABULARY_HINT)
            if _MISSING_KEY not in str(error):
                raise
            del state_dict[DATALOADER]
            super().dcp_load(state_dict, *args, **kwargs)
