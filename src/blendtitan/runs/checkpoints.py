"""The loader's states in the checkpoints of a run, read without PyTorch and in bounded memory."""

import re
import resource
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blendtitan.checkpoints import METADATA, Contents
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.runs.run_folder import DATA
from blendtitan.settings.toml import RESOLVED
from blendtitan.state import STATE_KEY, parse_state
from blendtitan.visible import visible, visible_logger

logger = visible_logger(__name__)

_STEP = re.compile(r"step-(\d+)")
_NAME = f"dataloader.{STATE_KEY}"

_INCOMPLETE = f"no {METADATA}: the save was interrupted, or the copy is incomplete"

_LEAST_MEMORY = 1 << 30
_MEMORY_PER_METADATA_BYTE = 12
"""A pickle that PyTorch wrote needs 7 bytes per byte. A hostile one can need thousands."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """One checkpoint of a run."""

    path: Path
    step: int
    state_dict: dict[str, Any] | None
    """The loader's state; None: it is missing, or the checkpoint is incomplete."""
    note: str
    """The reason why there is no state, or why a later checkpoint was skipped."""
    is_damaged: bool = False
    """Whether the state is missing because the checkpoint cannot be read."""


def stored_states(run_folder: Path) -> list[StoredState]:
    """The checkpoints of a run, by step.

    Raises:
        ConfigError: There is no checkpoint.
    """
    folders = [
        path
        for pattern in ("step-*", "*/step-*")
        for path in run_folder.glob(pattern)
        if path.is_dir() and _STEP.fullmatch(path.name)
    ]
    found = sorted({str(path.parent) for path in folders})
    if len(found) != 1:
        if not run_folder.exists():
            raise ConfigError(f"{run_folder}: there is no such folder. Name a run's output folder.")
        if not found and (run_folder / DATA).is_file():
            raise ConfigError(
                f"{run_folder}: the run has not saved a checkpoint yet. Run blendtitan train "
                f"{run_folder}"
            )
        what = f"several checkpoint folders ({', '.join(found)})" if found else "no checkpoints"
        raise ConfigError(
            f"{run_folder}: found {what}. Name the run's output folder, such as my-run/outputs, or "
            f"a folder that contains step-1, step-2, ..."
        )
    return sorted((_stored(path) for path in folders), key=lambda stored: stored.step)


def latest_state(folder: Path) -> StoredState:
    """The checkpoint of a folder, or the latest of a run that holds a readable state.

    Raises:
        ConfigError: No checkpoint has a state.
        ResumeError: No checkpoint has a readable state, and some are damaged.
    """
    is_checkpoint = _STEP.fullmatch(folder.absolute().name) is not None
    found = [_stored(folder.absolute())] if is_checkpoint else stored_states(folder)
    latest = _latest(found)
    if latest is None:
        raise ConfigError(f"{folder}: no checkpoint holds a loader state ({_notes(found)})")
    return latest


def own_state(run_folder: Path) -> StoredState | None:
    """The latest checkpoint of a run that holds a readable state; None before the first save.

    Raises:
        ConfigError: There are several checkpoint folders.
        ResumeError: No checkpoint has a readable state, and some are damaged.
    """
    if not any(run_folder.glob("*/step-*")):
        return None
    found = stored_states(run_folder)
    latest = _latest(found)
    if latest is None:
        logger.warning(
            "%s: none of its checkpoints holds a loader state, so changes during the run are "
            "unknown (%s)",
            run_folder,
            _notes(found),
        )
    return latest


def change_after(stored: StoredState, num_segments: int) -> str:
    """A sentence if a run was changed on the way, so that it does not read what is planned now.

    ``num_segments`` are configured now.
    """
    if stored.state_dict is None:
        return ""
    output = stored.path.parent.parent
    phases = parse_state(stored.state_dict).phases
    changes = [
        max(phase.first_slot, phase.segments[-1].first_slot)
        for n, phase in enumerate(phases)
        if n or len(phase.segments) > num_segments
    ]
    if not changes:
        return ""
    return (
        f"the run was changed after {changes[-1]:,} samples, but this plan is of a run "
        f"that is never changed. What was read: blendtitan report {output}. What is read at any "
        f"step: blendtitan explain {output}"
    )


def steps_beyond(config: Path, output: Path, steps: int) -> str:
    """A sentence if a run's output folder has a checkpoint beyond the last step of ``config``."""
    found = [path.name for path in output.glob("*/step-*") if _STEP.fullmatch(path.name)]
    last = max((int(name.removeprefix("step-")) for name in found), default=0)
    if last <= steps:
        return ""
    used = output / RESOLVED
    has_keys = used.is_file() and not used.samefile(config)
    return (
        f"training.steps is {steps:,}, but {output} has a checkpoint of step {last:,}: it was "
        f"trained with other keys. To plan that run, give them to plan, too, as "
        f"--training.steps {last}"
        + (f", or name the folder with the keys that it used: {output}" if has_keys else "")
    )


def _notes(found: Sequence[StoredState]) -> str:
    return "; ".join(f"{stored.path.name}: {stored.note}" for stored in found)


def _latest(found: Sequence[StoredState]) -> StoredState | None:
    """The latest checkpoint with a readable state; its note names damaged later ones."""
    damaged: list[StoredState] = []
    for stored in reversed(found):
        try:
            if stored.state_dict is not None:
                parse_state(stored.state_dict)
                names = ", ".join(each.path.name for each in reversed(damaged))
                return replace(stored, note=f"skipped, because damaged: {names}" if names else "")
        except ResumeError as error:
            stored = replace(stored, note=f"{stored.path}: {error}", is_damaged=True)
        if stored.is_damaged:
            damaged.append(stored)
    if damaged:
        raise ResumeError(*(stored.note for stored in damaged))
    return None


def _stored(path: Path) -> StoredState:
    step = int(path.name.removeprefix("step-"))
    metadata = path / METADATA
    if not metadata.exists():
        return StoredState(path, step, None, _INCOMPLETE)
    num_bytes = max(_LEAST_MEMORY, _MEMORY_PER_METADATA_BYTE * metadata.stat().st_size)
    try:
        with _memory_limited(num_bytes):
            text = Contents.read(path).value(_NAME)
    except (ResumeError, OSError, MemoryError) as error:
        reason = visible(str(error)) or f"It needs more than {num_bytes:,} bytes of memory."
        note = (
            f"{path}: cannot be read, expected a PyTorch checkpoint. {reason} It is damaged, or of "
            f"an unknown version."
        )
        return StoredState(path, step, None, note, is_damaged=True)
    if text is None:
        return StoredState(path, step, None, "holds no loader state")
    return StoredState(path, step, {STATE_KEY: text}, "")


@contextmanager
def _memory_limited(num_bytes: int) -> Generator[None]:
    """Let the process grow by at most so many bytes, on systems with ``/proc``."""
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
