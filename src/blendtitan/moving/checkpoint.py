"""A copy of a checkpoint with the state of our loader, from which a run resumes as from its own."""

import io
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

from blendtitan.checkpoints import METADATA, Contents, damage_to
from blendtitan.errors import ConfigError, ResumeError, requires_extra
from blendtitan.state import STATE_KEY
from blendtitan.storage.atomic_files import write_atomically, writing

_DATALOADER = "dataloader"
"""TorchTitan's name for the state of the loader."""
_FILE = "__blendtitan.distcp"


def step_of_checkpoint(folder: Path) -> int:
    """The step of a checkpoint of a run that another loader fed.

    Raises:
        ConfigError: It has the state of our loader, and so resumes by itself.
        ResumeError: It is damaged, or holds only a model.
    """
    name = folder.absolute().name
    step = name.removeprefix("step-")
    if not (name.startswith("step-") and step.isdecimal()):
        raise ConfigError(f"{folder}: expected the folder of one checkpoint, such as step-1000")
    if damage := damage_to(folder, step=int(step)):
        raise ResumeError(damage)
    if Contents.read(folder).value(f"{_DATALOADER}.{STATE_KEY}") is not None:
        raise ConfigError(
            f"{folder}: holds the state of blendtitan's loader already, so a run resumes from it "
            f"at the saved position. Expected a checkpoint of a run with another loader."
        )
    return int(step)


def copy_with_state(source: Path, folder: Path, state: Mapping[str, str]) -> Path:
    """Copy a checkpoint into a folder of checkpoints, with the state of our loader.

    The copy is complete once its ``.metadata`` is written, which happens last.

    Raises:
        ConfigError: The folder has a checkpoint of this step.
        OutputError: The copy cannot be written.
    """
    target = folder / source.absolute().name
    if (target / METADATA).exists():
        raise ConfigError(
            f"{target}: holds a checkpoint already. Choose another folder, or move it away."
        )
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            if file.name != METADATA and file.is_file():
                shutil.copyfile(file, target / file.name)
    _write_state(source, target, state)
    return target


def _write_state(source: Path, target: Path, state: Mapping[str, str]) -> None:
    with requires_extra("train", "writing a checkpoint"):
        import torch
        from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
        from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

    metadata = FileSystemReader(source).read_metadata()
    content = io.BytesIO()
    for key, text in state.items():
        start = content.tell()
        torch.save(text, content)
        name = f"{_DATALOADER}.{key}"
        metadata.state_dict_metadata[name] = BytesStorageMetadata()
        metadata.planner_data[name] = (_DATALOADER, key)
        metadata.storage_data[MetadataIndex(name)] = _StorageInfo(
            _FILE, start, content.tell() - start
        )
    write_atomically(target / _FILE, content.getvalue())
    write_atomically(target / METADATA, pickle.dumps(metadata))
