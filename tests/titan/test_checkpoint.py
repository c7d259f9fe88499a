"""Checkpoints of this project's runs and of runs with another data loader."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.dcp import AsyncMode

from blendtitan.state import STATE_KEY
from blendtitan.titan.checkpoint import BlendCheckpointManager


@pytest.fixture(autouse=True)
def undistributed() -> Iterator[None]:
    """PyTorch warns of not being distributed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def build() -> BlendCheckpointManager:
    parts: Any = dict.fromkeys(
        ("dataloader", "model_parts", "optimizers", "lr_schedulers", "states", "sd_adapter")
    )
    return BlendCheckpointManager.Config().build(**parts)


def loaded(folder: Path, into: dict[str, Any]) -> dict[str, Any]:
    manager = build()
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


def test_a_checkpoint_that_is_saved_anew_is_incomplete_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that went back and is killed while it saves would leave the old name on new tensors."""
    dcp.save({"step": 3}, checkpoint_id=str(tmp_path))
    meanwhile: list[bool] = []

    def save(*_: Any, **__: Any) -> None:
        meanwhile.append((tmp_path / ".metadata").exists())

    monkeypatch.setattr(CheckpointManager, "dcp_save", save)
    build().dcp_save({"step": 3}, str(tmp_path), AsyncMode.DISABLED)

    assert meanwhile == [False]


def test_a_damage_that_files_show_is_told(tmp_path: Path) -> None:
    tensor = torch.zeros(1000)
    dcp.save({"weight": tensor}, checkpoint_id=str(tmp_path))
    os.truncate(tmp_path / "__0_0.distcp", 10)

    with pytest.raises(CheckpointException) as error:
        loaded(tmp_path, {"weight": tensor})
    assert "__0_0.distcp: found 10 bytes, expected" in "".join(error.value.__notes__)
