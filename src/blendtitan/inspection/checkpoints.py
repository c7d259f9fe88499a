"""The loader's states in the checkpoints of a run, read without running anything in them.

PyTorch's distributed checkpoints are pickles. They are read with an unpickler that makes every
object an empty shell and calls nothing, so that no code of a checkpoint ever runs, and neither
PyTorch nor the run's machines are needed.

Source: ``torch.distributed.checkpoint.filesystem`` and ``torch.save`` of PyTorch 2.13 to 2.15.
"""

import io
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendtitan.errors import ConfigError, ResumeError
from blendtitan.regular_files import open_file, read_file
from blendtitan.state import STATE_KEY

_STEP = re.compile(r"step-(\d+)")
_METADATA = ".metadata"
_NAME = f"dataloader.{STATE_KEY}"


@dataclass(frozen=True, slots=True)
class StoredState:
    """One checkpoint of a run."""

    path: Path
    step: int
    state_dict: dict[str, Any] | None
    """The loader's state; None: the checkpoint has none, or is incomplete."""
    note: str
    """Why there is none."""


def stored_states(run_folder: Path) -> list[StoredState]:
    """What the checkpoints of a run hold, by step.

    Args:
        run_folder: The run's ``job.dump_folder``, or its folder of checkpoints.

    Raises:
        ConfigError: There is no checkpoint.
        ResumeError: A checkpoint cannot be read.
    """
    folders = [
        path
        for pattern in ("step-*", "*/step-*")
        for path in run_folder.glob(pattern)
        if path.is_dir() and _STEP.fullmatch(path.name)
    ]
    if len({path.parent for path in folders}) != 1:
        found = sorted({str(path.parent) for path in folders}) or "none"
        raise ConfigError(
            f"{run_folder}: found folders of checkpoints: {found}, expected one that holds "
            f"step-1, step-2, ... Name a run's dump_folder, or its folder of checkpoints."
        )
    return sorted((_stored(path) for path in folders), key=lambda stored: stored.step)


def latest_state(folder: Path) -> StoredState:
    """The checkpoint of a folder, or the latest of a run that holds a state.

    Raises:
        ConfigError: There is none with a state.
        ResumeError: A checkpoint cannot be read.
    """
    is_checkpoint = _STEP.fullmatch(folder.absolute().name) is not None
    found = [_stored(folder.absolute())] if is_checkpoint else stored_states(folder)
    states = [stored for stored in found if stored.state_dict is not None]
    if not states:
        notes = "; ".join(f"{stored.path.name}: {stored.note}" for stored in found)
        raise ConfigError(f"{folder}: no checkpoint holds a state of the data loader ({notes})")
    return states[-1]


def own_state(run_folder: Path) -> StoredState | None:
    """The latest checkpoint of a run that holds a state; None: there is none yet.

    Raises:
        ConfigError: There are several folders of checkpoints.
        ResumeError: A checkpoint cannot be read.
    """
    if not any(run_folder.glob("*/step-*")):
        return None
    states = [stored for stored in stored_states(run_folder) if stored.state_dict is not None]
    return states[-1] if states else None


def _stored(path: Path) -> StoredState:
    step = int(path.name.removeprefix("step-"))
    if not (path / _METADATA).exists():
        return StoredState(path, step, None, "incomplete: its writing was interrupted")
    try:
        text = _stored_text(path)
    except Exception as error:
        # Whatever bytes are there instead, the pickle machine may raise anything.
        raise ResumeError(
            f"{path}: cannot be read ({type(error).__name__}: {error}), expected a checkpoint of "
            f"PyTorch. It is damaged, or of a version that is not known."
        ) from error
    if text is None:
        return StoredState(path, step, None, "holds no state of the data loader")
    return StoredState(path, step, {STATE_KEY: text}, "")


def _stored_text(path: Path) -> Any:
    """The loader's state in a checkpoint; None if it has none."""
    metadata = _shell_of(read_file(path / _METADATA))
    stored = [at for key, at in metadata.storage_data.items() if key.fqn == _NAME]
    if not stored:
        return None
    with open_file(path / Path(stored[0].relative_path).name) as file:
        file.seek(stored[0].offset)
        archive = zipfile.ZipFile(io.BytesIO(file.read(stored[0].length)))
    (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    return _shell_of(archive.read(pickled))


class _Shell:
    """Stands for an object of any class: it has its attributes and does nothing."""

    def __new__(cls, *arguments: object, **keywords: object) -> "_Shell":
        return super().__new__(cls)

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _ShellUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> type[_Shell]:
        return _Shell

    def persistent_load(self, pid: object, /) -> None:
        return None


def _shell_of(data: bytes) -> Any:
    return _ShellUnpickler(io.BytesIO(data)).load()
