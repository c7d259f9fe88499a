"""TorchTitan's checkpoints, from runs with our data loader or another one.

A checkpoint is complete once it has a ``.metadata`` file, which PyTorch renames into place after
everything else is written. A folder that a killed run left without one is not a checkpoint.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.dcp import AsyncMode
from torchtitan.tools import filesystem

from blendtitan.checkpoints import METADATA
from blendtitan.claims.held import check_claim
from blendtitan.placed_loader import is_first_rank
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_MARKS = (METADATA, "model.safetensors.index.json")
"""Files that mark a complete checkpoint of PyTorch or of Hugging Face."""

SAVING = ".saving"
"""Empty file in the folder of a checkpoint while it is saved. It distinguishes the checkpoint of a
killed run from a checkpoint that lost its ``.metadata``."""


class BlendCheckpointManager(CheckpointManager):
    """Also loads checkpoints without our loader's state, and survives runs killed while saving."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """``[checkpoint]``: TorchTitan's keys, and the treatment of damaged checkpoints."""

        fallback: bool = False
        """Resume from the newest intact checkpoint if the one to load is damaged. False: a damaged
        checkpoint is an error that names the newest intact one."""

    saved_step = 0
    """Step of the current save, or of the last."""
    leads = True
    """Whether this process saves: of replicas that may fail, only one does."""
    may_save: Callable[[int], bool] = staticmethod(lambda _: True)
    """Whether a step may be saved. A collective operation."""

    def __init__(self, config: Config, **parts: Any) -> None:
        super().__init__(config, **parts)
        self.fallback = config.fallback
        self.damaged: set[int] = set()
        """Steps of checkpoints that were skipped because they are damaged."""

    def _load(self, step: int = -1) -> bool:
        """Load the checkpoint of a step, or (-1) the latest, after rank 0 has checked it."""
        return super()._load(int(from_first_rank(lambda: b"%d" % self._chosen(step))))

    def _chosen(self, step: int) -> int:
        if step == -1 and not self.initial_load_path and not self.steps():
            return -1  # a run that begins
        from blendtitan.titan.checkpoint_faults import chosen_step

        return chosen_step(self, step)

    def _find_load_step(self, folder: str = "") -> int:
        """The latest complete step, or -1. TorchTitan would also count ``step-30.old``."""
        assert folder in ("", self.folder)
        return max(self.complete_steps(), default=-1)

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        if not self._should_save(curr_step, last_step) or not self.may_save(curr_step):
            return False
        # Wait for a checkpoint that is still being written while ``saved_step`` is its step.
        self.maybe_wait_for_saving()
        from_first_rank(check_claim)
        self.saved_step = curr_step
        self.damaged.discard(curr_step)
        return super()._save(curr_step, last_step)

    def dcp_save(
        self,
        state_dict: dict[str, Any],
        checkpoint_id: str,
        async_mode: AsyncMode,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Save a checkpoint in place of an older one of the same step."""
        # Otherwise a run that ended now would leave the old .metadata with new tensors. The other
        # ranks write nothing before rank 0 has planned the save.
        if is_first_rank():
            for mark in _MARKS:
                _remove_file(filesystem.join(checkpoint_id, mark))
            _mark(checkpoint_id)
        from blendtitan.titan.checkpoint_faults import reporting_save_errors

        with reporting_save_errors(checkpoint_id):
            result = super().dcp_save(state_dict, checkpoint_id, async_mode, *args, **kwargs)
        if async_mode is AsyncMode.DISABLED:
            _unmark(checkpoint_id)
        return result

    def _wait_for_saving(self) -> None:
        """Wait for a background save."""
        from blendtitan.titan.checkpoint_faults import reporting_save_errors

        folder = self._create_checkpoint_id(self.saved_step)
        with reporting_save_errors(folder):
            super()._wait_for_saving()
        _unmark(folder)

    def dcp_load(
        self, state_dict: dict[str, Any], checkpoint_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load the checkpoint into ``state_dict``; without the loader's state if it has none."""
        from blendtitan.titan.checkpoint_faults import load

        load(super().dcp_load, state_dict, checkpoint_id, *args, **kwargs)

    def _purge_stale_checkpoints(self) -> None:
        """Delete old checkpoints except the latest ``keep_latest_k``, the one being saved included.

        TorchTitan counts folders. Incomplete and damaged folders, and those of steps after the
        resumed one, would take the places of the only checkpoints that can be resumed from.
        """
        if not self._should_purge():
            return
        usable = self.complete_steps() - self.damaged
        complete = sorted(step for step in usable if step < self.saved_step)
        kept = complete[1 - self.keep_latest_k :]
        for step in self.steps():
            if kept and step < kept[0]:
                self.purge_queue.put(self._create_checkpoint_id(step))

    def steps(self) -> set[int]:
        """Steps that have a folder."""
        names = filesystem.listdir(self.folder) if filesystem.isdir(self.folder) else []
        return {int(match[1]) for match in (re.fullmatch(r"step-(\d+)", n) for n in names) if match}

    def complete_steps(self) -> set[int]:
        """Steps that have a complete checkpoint."""

        def is_complete(step: int) -> bool:
            folder = self._create_checkpoint_id(step)
            return any(filesystem.isfile(filesystem.join(folder, mark)) for mark in _MARKS)

        return {step for step in self.steps() if is_complete(step)}


def _remove_file(path: str) -> None:
    if filesystem.is_remote(path):
        filesystem.rmtree(path)  # removes remote files too, but not local ones
    else:
        Path(path).unlink(missing_ok=True)


def _mark(folder: str) -> None:
    """Mark the folder of a running save, if the disk allows it."""
    if not filesystem.is_remote(folder):
        with suppress(OSError):  # the save itself then fails on all ranks
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, SAVING).touch()


def _unmark(folder: str) -> None:
    if is_first_rank() and not filesystem.is_remote(folder):
        Path(folder, SAVING).unlink(missing_ok=True)
