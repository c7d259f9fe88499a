"""The loader's states in the checkpoints of a run, read without PyTorch and in bounded memory."""

import re
import resource
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendtitan.checkpoints.contents import METADATA, Contents
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.state import STATE_KEY

_STEP = re.compile(r"step-(\d+)")
_NAME = f"dataloader.{STATE_KEY}"

_LEAST_MEMORY = 1 << 30
_MEMORY_PER_METADATA_BYTE = 12
"""Pickles that PyTorch wrote need 7 bytes for each of theirs. Others can ask for thousands."""


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
    metadata = path / METADATA
    if not metadata.exists():
        return StoredState(path, step, None, "incomplete: its writing was interrupted")
    num_bytes = max(_LEAST_MEMORY, _MEMORY_PER_METADATA_BYTE * metadata.stat().st_size)
    try:
        with _memory_limited(num_bytes):
            text = Contents.read(path).value(_NAME)
    except (ResumeError, OSError, MemoryError) as error:
        raise ResumeError(
            f"{path}: cannot be read, expected a checkpoint of PyTorch. "
            f"{str(error) or f'It needs more than {num_bytes:,} bytes of memory.'} It is damaged, "
            f"or of a version that is not known."
        ) from error
    if text is None:
        return StoredState(path, step, None, "holds no state of the data loader")
    return StoredState(path, step, {STATE_KEY: text}, "")


@contextmanager
def _memory_limited(num_bytes: int) -> Generator[None]:
    """Let the process grow by so many bytes at most, where the system has ``/proc`` to tell."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    soft, hard = limits
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + num_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit if soft < 0 else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
