"""Checkpoints of this project's runs and of runs with another data loader."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.dcp import AsyncMode

from blendtitan.errors import ConfigError, ResumeError
from blendtitan.state import STATE_KEY
from blendtitan.titan.checkpoint import BlendCheckpointManager
from tests.checkpoints.saved import save


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


def test_a_checkpoint_that_is_saved_again_is_incomplete_until_it_is_finished(
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


# Which checkpoint is loaded


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that TorchTitan loads; -1: the initial weights."""
    steps: list[int] = []

    def load(self: CheckpointManager, step: int) -> bool:
        steps.append(step if step != -1 else self._find_load_step())
        return True

    monkeypatch.setattr(CheckpointManager, "_load", load)
    return steps


def enabled(folder: Path, **settings: Any) -> BlendCheckpointManager:
    parts: Any = dict.fromkeys(("dataloader", "optimizers", "lr_schedulers", "sd_adapter"))
    config = BlendCheckpointManager.Config(
        enable=True, folder=str(folder), keep_latest_k=0, **settings
    )
    return config.build(model_parts=[], states={}, **parts)


def test_the_latest_whole_checkpoint_is_loaded(tmp_path: Path, chosen: list[int]) -> None:
    for step in (2, 10, 4):
        save(tmp_path, step)
    save(tmp_path, 30).rename(tmp_path / "step-30.old")  # TorchTitan would look for step-30
    enabled(tmp_path).load()

    assert chosen == [10]


def test_a_damaged_checkpoint_is_refused_and_the_whole_one_named(tmp_path: Path) -> None:
    save(tmp_path, 2)
    file = save(tmp_path, 4) / "__0_0.distcp"
    os.truncate(file, 10)

    with pytest.raises(ResumeError) as error:
        enabled(tmp_path).load()
    assert str(error.value).startswith(f"Cannot resume from step-4. {file}: found 10 bytes, ")
    assert "set checkpoint.fallback = true to resume from step-2" in str(error.value)


def test_with_fallback_it_is_skipped_with_a_warning(
    tmp_path: Path, chosen: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 2)
    os.truncate(save(tmp_path, 4) / ".metadata", 0)
    enabled(tmp_path, fallback=True).load()

    assert chosen == [2]
    assert caplog.messages[-1] == (
        f"{tmp_path}/step-4/.metadata is empty. Training resumes from step-2, because "
        f"checkpoint.fallback is true."
    )


def test_the_only_whole_checkpoint_is_not_deleted_for_damaged_ones(
    tmp_path: Path, chosen: list[int]
) -> None:
    """``keep_latest_k`` would count them, and leave nothing while the next one is saved."""
    for step in (2, 4, 6):
        save(tmp_path, step)
    for step in (4, 6):
        os.truncate(tmp_path / f"step-{step}/.metadata", 0)
    manager = enabled(tmp_path, fallback=True)
    manager.load()
    manager.keep_latest_k, manager._step = 2, 8
    manager.purge_queue = Queue()
    manager._should_purge = lambda: True
    manager._purge_stale_checkpoints()

    assert chosen == [2]
    assert manager.purge_queue.empty()


def test_checkpoints_that_all_lack_their_metadata_are_an_error(tmp_path: Path) -> None:
    """A copy without hidden files; the run would begin again at step 1."""
    for step in (2, 4):
        (save(tmp_path, step) / ".metadata").unlink()

    with pytest.raises(ResumeError, match=r"steps 2, 4, none with its \.metadata file, .*delete"):
        enabled(tmp_path).load()


def test_a_run_killed_in_its_first_save_starts_over(
    tmp_path: Path,
    chosen: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It never had a checkpoint, so nothing is lost and nobody has to look at it."""

    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointManager, "dcp_save", end)
    with pytest.raises(KeyboardInterrupt):
        enabled(tmp_path).dcp_save({}, str(tmp_path / "step-2"), AsyncMode.DISABLED)
    enabled(tmp_path).load()

    assert chosen == [-1]
    assert "step-2: is incomplete" in caplog.text


def test_a_saved_checkpoint_holds_nothing_but_pytorchs_files(tmp_path: Path) -> None:
    enabled(tmp_path).dcp_save({"a": 1}, checkpoint_id=str(tmp_path), async_mode=AsyncMode.DISABLED)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".metadata", "__0_0.distcp"]


def test_weights_to_begin_with_are_checked_unless_they_are_hugging_faces(
    tmp_path: Path, chosen: list[int]
) -> None:
    """A checkpoint to begin with may have any name; Hugging Face's have no ``.metadata``."""
    pretrained = save(tmp_path, 4).rename(tmp_path / "pretrained")
    enabled(tmp_path / "out", initial_load_path=str(pretrained)).load()
    os.truncate(pretrained / "__0_0.distcp", 10)
    enabled(tmp_path / "out", initial_load_path=str(pretrained), initial_load_in_hf=True).load()

    assert chosen == [-1, -1]
    with pytest.raises(ResumeError, match=r"initial_load_path: .*__0_0\.distcp: found 10 bytes"):
        enabled(tmp_path / "out", initial_load_path=str(pretrained)).load()


def test_a_step_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 2)

    with pytest.raises(ConfigError, match=r"load_step is 3, expected the step of .*: 2\."):
        enabled(tmp_path).load(3)
