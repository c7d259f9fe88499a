"""TorchTitan's checkpoints, of this project's runs and of runs with another data loader.

A checkpoint is complete when PyTorch has given its ``.metadata`` that name, after everything else
was written. What a killed run left without one is no checkpoint.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.base import DATALOADER
from torchtitan.tools import filesystem

from blendtitan.errors import OutputError
from blendtitan.state import STATE_KEY
from blendtitan.storage.disk import space_on_disk
from blendtitan.titan.shared_catalog import is_first_rank
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_MISSING_KEY = f"Missing key in checkpoint state_dict: {DATALOADER}.{STATE_KEY}."
"""How PyTorch refuses, on every rank and before it reads anything, a checkpoint without it."""

_SIZE_MISMATCH = "Size mismatch between saved"
"""How it refuses a tensor of another shape."""

_VOCABULARY_HINT = (
    "The checkpoint's model has other sizes. If only the first dimension of the embedding differs, "
    "set model.vocab_size to that of the checkpoint; left out, it follows the tokenizer."
)

_METADATA = ".metadata"

_MARKS = (_METADATA, "model.safetensors.index.json")
"""Files of which one is in every complete checkpoint, PyTorch's or Hugging Face's."""


class BlendCheckpointManager(CheckpointManager):
    """Also loads checkpoints without a state of our loader; survives runs killed while saving."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """``[checkpoint]``: TorchTitan's."""

    _step = 0
    """Of the checkpoint that is being saved, or was last."""

    def _load(self, step: int = -1) -> bool:
        """Load a checkpoint; TorchTitan's own choice passes over incomplete ones, here named."""
        if is_first_rank():
            for number in sorted(self._steps() - self._complete_steps()):
                logger.warning(
                    "%s: is incomplete, as a run that was ended while it saved leaves it. It is "
                    "not used, and written anew when training comes to its step.",
                    self._create_checkpoint_id(number),
                )
        return super()._load(step)

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        if not self._should_save(curr_step, last_step):
            return False
        # One that is still being written is waited for first, under its own step.
        self.maybe_wait_for_saving()
        self._step = curr_step
        return super()._save(curr_step, last_step)

    def dcp_save(
        self, state_dict: dict[str, Any], checkpoint_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Save a checkpoint. One of the same step, which a run went back behind, is no more."""
        # Ended now, the run would leave the old .metadata with new tensors. The other ranks write
        # nothing before rank 0 has planned with them.
        if is_first_rank():
            for mark in _MARKS:
                _remove_file(filesystem.join(checkpoint_id, mark))
        with _saved(checkpoint_id):
            return super().dcp_save(state_dict, checkpoint_id, *args, **kwargs)

    def _wait_for_saving(self) -> None:
        """Wait for the checkpoint that is written while training goes on."""
        with _saved(self._create_checkpoint_id(self._step)):
            super()._wait_for_saving()

    def dcp_load(
        self, state_dict: dict[str, Any], checkpoint_id: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load the checkpoint into ``state_dict``, without the loader's state if it has none."""
        try:
            super().dcp_load(state_dict, checkpoint_id, *args, **kwargs)
        except CheckpointException as error:
            if _MISSING_KEY in str(error):
                del state_dict[DATALOADER]
                super().dcp_load(state_dict, checkpoint_id, *args, **kwargs)
                return
            if _SIZE_MISMATCH in str(error):
                error.add_note(_VOCABULARY_HINT)
            if damage := _damage(checkpoint_id):
                error.add_note(
                    f"{damage} Copy the checkpoint again, or move the folder away: the run then "
                    f"goes on from the checkpoint before it."
                )
            raise

    def _purge_stale_checkpoints(self) -> None:
        """Delete old checkpoints, but for the latest ``keep_latest_k`` up to the one being saved.

        TorchTitan counts folders: incomplete ones, and those of later steps that the run went back
        behind, would take the places of the only checkpoints it can go on from.
        """
        if not self._should_purge():
            return
        complete = sorted(step for step in self._complete_steps() if step < self._step)
        kept = complete[1 - self.keep_latest_k :]
        for step in self._steps():
            if kept and step < kept[0]:
                self.purge_queue.put(self._create_checkpoint_id(step))

    def _steps(self) -> set[int]:
        """Steps that have a folder."""
        names = filesystem.listdir(self.folder) if filesystem.isdir(self.folder) else []
        return {int(match[1]) for match in (re.fullmatch(r"step-(\d+)", n) for n in names) if match}

    def _complete_steps(self) -> set[int]:
        """Steps that have a complete checkpoint."""

        def is_complete(step: int) -> bool:
            folder = self._create_checkpoint_id(step)
            return any(filesystem.isfile(filesystem.join(folder, mark)) for mark in _MARKS)

        return {step for step in self._steps() if is_complete(step)}


@contextmanager
def _saved(folder: str) -> Generator[None]:
    """A block that saves a checkpoint, or waits until it is saved.

    Raises:
        OutputError: It could not be saved, on whichever rank; all ranks raise.
    """
    try:
        yield
    except CheckpointException as error:
        where = "" if filesystem.is_remote(folder) else f" {space_on_disk(Path(folder).parent)}"
        raise OutputError(
            f"{folder}: cannot be written.{where} The reasons are above. Run again when they are "
            f"gone: training goes on from the last complete checkpoint."
        ) from error


def _remove_file(path: str) -> None:
    if filesystem.is_remote(path):
        filesystem.rmtree(path)  # which takes files as well there, and does not here
    else:
        Path(path).unlink(missing_ok=True)


def _damage(folder: str) -> str | None:
    """What is seen to be wrong with the files of a checkpoint, in a sentence. None: nothing."""
    if filesystem.is_remote(folder):
        return None
    path = Path(folder, _METADATA)
    if not path.exists():
        return f"{folder}: has no {_METADATA}: the checkpoint is incomplete."
    try:
        metadata = FileSystemReader(folder).read_metadata()
    except Exception as error:  # whatever unpickling comes upon
        return f"{path}: cannot be read ({type(error).__name__}: {error})."
    expected: dict[str, int] = {}
    for part in (metadata.storage_data or {}).values():
        end = part.offset + part.length
        expected[part.relative_path] = max(end, expected.get(part.relative_path, 0))
    for name, num_bytes in sorted(expected.items()):
        file = Path(folder, name)
        found = file.stat().st_size if file.exists() else 0
        if found < num_bytes:
            return f"{file}: found {found:,} bytes, expected {num_bytes:,}."
    return None
