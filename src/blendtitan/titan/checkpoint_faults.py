"""Faults of checkpoints: damage, missing parts, and disks that cannot be written.

Rank 0 checks a checkpoint for damage before it is loaded, so that all ranks end with one error that
names the file.
"""

from collections.abc import Callable, Generator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpointer.base import DATALOADER, TRAIN_STATE
from torchtitan.tools import filesystem

from blendtitan.checkpoints import METADATA, choose_step, damage_to, none_complete
from blendtitan.errors import OutputError, ResumeError
from blendtitan.state import STATE_KEY
from blendtitan.storage.write_faults import space_on_disk
from blendtitan.titan.checkpoint import SAVING
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.checkpoint import BlendCheckpointManager

logger = visible_logger(__name__)

_MISSING_KEY = f"Missing key in checkpoint state_dict: {DATALOADER}.{STATE_KEY}."
"""PyTorch's error for a checkpoint without this key, on every rank, before reading anything."""

_SIZE_MISMATCH = "Size mismatch between saved"
"""PyTorch's error for a tensor of another shape."""

_VOCABULARY_HINT = (
    "The model in the checkpoint has other sizes. If only the first dimension of the embedding "
    "differs, "
    "set model.vocab_size to that of the checkpoint; left out, it follows the tokenizer."
)


def chosen_step(manager: "BlendCheckpointManager", step: int) -> int:
    """The step of the checkpoint to load: the one given, or (-1) the latest; -1 if there is none.

    Raises:
        BlendTitanError: The checkpoint is unusable.
    """
    complete = manager.complete_steps()
    _log_incomplete(manager, manager.steps() - complete)
    if not complete and step == -1:
        _check_initial(manager)
        return -1
    choice = choose_step(
        complete,
        lambda step: _damage_at(manager, step),
        folder=manager.folder,
        asked=None if step == -1 else step,
        fallback=manager.fallback,
    )
    manager.damaged = set(choice.damage)
    for damage in choice.damage.values():
        logger.warning(
            "%s Training resumes from step-%d, because checkpoint.fallback is true.",
            *(damage, choice.step),
        )
    return choice.step


def _folder(manager: "BlendCheckpointManager", step: int) -> str:
    return filesystem.join(manager.folder, f"step-{step}")


def _log_incomplete(manager: "BlendCheckpointManager", steps: Set[int]) -> None:
    for step in sorted(steps):
        logger.warning(
            "%s: is incomplete, because a run ended while saving it. It is ignored, and saved "
            "again when training reaches its step.",
            _folder(manager, step),
        )


def _damage_at(manager: "BlendCheckpointManager", step: int) -> str | None:
    folder = _folder(manager, step)
    if filesystem.is_remote(folder):
        return None
    if not Path(folder, METADATA).exists():
        return f"{folder}: holds only a model in Hugging Face's format, no training state."
    is_trained = step > 0 and TRAIN_STATE not in manager.exclude_from_loading
    return damage_to(
        Path(folder),
        step=step if is_trained else None,
        values=(f"{DATALOADER}.{STATE_KEY}",),
    )


def _check_initial(manager: "BlendCheckpointManager") -> None:
    """Check the start of a run that has no complete checkpoint of its own.

    Raises:
        ResumeError: Its checkpoints have lost their ``.metadata``, or the one at
            ``initial_load_path`` is damaged.
    """
    steps = manager.steps()
    # A run that is ended during its first save leaves one folder, marked.
    if not all(filesystem.isfile(filesystem.join(_folder(manager, n), SAVING)) for n in steps):
        raise none_complete(manager.folder, steps)
    path = manager.initial_load_path
    if not path or manager.initial_load_in_hf or filesystem.is_remote(path):
        return
    if filesystem.isdir(path) and (damage := damage_to(Path(path), step=None)):
        raise ResumeError(f"checkpoint.initial_load_path: {damage} Copy the checkpoint again.")


def load(
    dcp_load: Callable[..., None],
    state_dict: dict[str, Any],
    checkpoint_id: str,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Load a checkpoint into ``state_dict``; without the loader's state if it has none."""
    try:
        dcp_load(state_dict, checkpoint_id, *args, **kwargs)
    except CheckpointException as error:
        if _MISSING_KEY in str(error):
            del state_dict[DATALOADER]
            dcp_load(state_dict, checkpoint_id, *args, **kwargs)
            return
        if _SIZE_MISMATCH in str(error):
            error.add_note(_VOCABULARY_HINT)
        raise


@contextmanager
def reporting_save_errors(folder: str) -> Generator[None]:
    """Turn errors of saving a checkpoint in the block into one error on all ranks.

    Raises:
        OutputError: Any rank could not save it; all ranks raise.
    """
    try:
        yield
    except CheckpointException as error:
        where = "" if filesystem.is_remote(folder) else f" {space_on_disk(Path(folder).parent)}"
        raise OutputError(
            f"{folder}: cannot be written.{where} The reasons are above. Fix them and run again: "
            f"training resumes from the last complete checkpoint."
        ) from error
