"""Small checkpoints, saved by PyTorch as TorchTitan has them saved."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp

from blendtitan.state import STATE_KEY


def save(folder: Path, step: int, **more: Any) -> Path:
    """The checkpoint of a step, in its folder."""
    path = folder / f"step-{step}"
    states: dict[str, Any] = {
        "train_state": {"step": step},
        "dataloader": {STATE_KEY: "{}"},
        "weight": torch.arange(100_000),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that there is one process
        dcp.save(states | more, checkpoint_id=path, no_dist=True)
    return path


def zero(path: Path, start: int = 0, stop: int | None = None) -> None:
    """Overwrite a stretch of a file with zeros, as a power failure may leave it."""
    data = bytearray(path.read_bytes())
    stop = len(data) if stop is None else stop
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
