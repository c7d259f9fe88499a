"""Checkpoints of this project's runs and of runs with another data loader."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from blendtitan.state import STATE_KEY
from blendtitan.titan.checkpoint import BlendCheckpointManager


@pytest.fixture(autouse=True)
def undistributed() -> Iterator[None]:
    """PyTorch warns of not being distributed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def loaded(folder: Path, into: dict[str, Any]) -> dict[str, Any]:
    parts: Any = dict.fromkeys(
        ("dataloader", "model_parts", "optimizers", "lr_schedulers", "states", "sd_adapter")
    )
    manager = BlendCheckpointManager.Config().build(**parts)
    manager.states = {}
    manager.dcp_load(into, checkpoint_id=str(folder), from_hf=False, from_quantized=False)
    return into


def test_the_loaders_state_is_loaded(tmp_path: Path) -> None:
    saved = {"step": 3, "dataloader": {STATE_KEY: "state"}}
    dcp.save(saved, checkpoint_id=str(tmp_path))

    assert loaded(tmp_path, {"step": 0, "dataloader": {STATE_KEY: ""}}) == saved


def test_without_the_loaders_state_the_rest_is_loaded(tmp_path: Path) -> None:
    """The checkpoint comes from a run with another data loader."""
    dcp.save({"step": 3, "dataloader": {"dp_rank_0": ""}}, checkpoint_id=str(tmp_path))

    assert loaded(tmp_path, {"step": 0, "dataloader": {STATE_KEY: ""}}) == {"step": 3}


def test_anything_else_that_is_missing_is_an_error(tmp_path: Path) -> None:
    dcp.save({"step": 3}, checkpoint_id=str(tmp_path))

    with pytest.raises(CheckpointException, match="ranks"):
        loaded(tmp_path, {"step": 0, "optimizer": 0, "dataloader": {STATE_KEY: ""}})
