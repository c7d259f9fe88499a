"""Which checkpoint to resume from, and damage that shows without reading a checkpoint whole.

The check finds a ``.metadata`` that is missing, empty, cut or overwritten; files that are missing
or too short; items whose first or last bytes are not those of an archive, because part of a file
never reached the disk; a damaged training step or loader state; and a folder renamed to another
step. It looks at up to ``_MOST_PLACES`` items, but at least ``_FEWEST_PER_FILE`` in each file,
always the first and the last. It does not find bytes that changed inside a tensor.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blendtitan.checkpoints.contents import Contents, Item
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.files import io_map, open_regular

_MOST_PLACES = 4096
_FEWEST_PER_FILE = 8
_ARCHIVE_HEAD, _ARCHIVE_END = b"PK\x03\x04", b"PK\x05\x06"

STEP_ITEM = "train_state.step"
"""TorchTitan's name for the number of steps that were trained."""


# The record that ends an archive has this size, because torch.save writes no comment into it.
_END_BYTES = 22


def damage_to(folder: Path, *, step: int | None, values: Sequence[str] = ()) -> str | None:
    """The damage to a checkpoint, as a sentence. None: there is none to be seen.

    Args:
        folder: Of the checkpoint.
        step: The step in its name, which its training state must have. None: it is not checked.
        values: Names of values that must be readable where the checkpoint has them.
    """
    try:
        contents = Contents.read(folder)
        _check_files(contents)
        for name in values:
            contents.value(name)
        if step is not None:
            _check_step(contents, step)
    except ResumeError as error:
        return str(error)
    except OSError as error:
        return f"{folder}: cannot be read ({error})."
    return None


def _check_files(contents: Contents) -> None:
    items_of: defaultdict[str, list[Item]] = defaultdict(list)
    for item in contents.items:
        items_of[item.file].append(item)
    places = max(_FEWEST_PER_FILE, _MOST_PLACES // max(1, len(items_of)))
    check = partial(_check_file, contents.folder, places=places)
    io_map(check, [items_of[name] for name in sorted(items_of)])


def _check_file(folder: Path, items: Sequence[Item], *, places: int) -> None:
    path = folder / items[0].file
    if not path.is_file():
        raise ResumeError(f"{path}: is missing, or is not a file.")
    expected = max(item.offset + item.length for item in items)
    found = path.stat().st_size
    if found < expected:
        raise ResumeError(f"{path}: found {found:,} bytes, expected {expected:,}.")
    archives = sorted((item for item in items if item.is_archive), key=lambda item: item.offset)
    file, _ = open_regular(path)
    try:
        for item in _spread(archives, places):
            _check_item(path, file, item)
    finally:
        os.close(file)


def _check_item(path: Path, file: int, item: Item) -> None:
    end = item.offset + item.length
    ends = (
        (item.offset, _ARCHIVE_HEAD),
        (max(item.offset, end - _END_BYTES), _ARCHIVE_END),
    )
    for at, expected in ends:
        found = os.pread(file, len(expected), at)
        if found != expected:
            raise ResumeError(
                f"{path}: found the bytes {found!r} at byte {at:,}, expected {expected!r}: "
                f"{item.name!r}, bytes {item.offset:,} to {end:,}, was overwritten, or never "
                f"reached the disk."
            )


def _check_step(contents: Contents, step: int) -> None:
    found = contents.value(STEP_ITEM)
    if found is None:
        raise ResumeError(
            f"{contents.folder}: holds no training state, but a model alone, as "
            f"checkpoint.last_save_model_only = true saves it."
        )
    # Other releases of TorchTitan keep it as a tensor.
    if isinstance(found, int) and found != step:
        raise ResumeError(
            f"{contents.folder}: holds the state after step {found:,}, expected step {step:,} by "
            f"its name. The folder was renamed: give it the name step-{found} again."
        )


def _spread(items: Sequence[Item], places: int) -> list[Item]:
    """At most ``places`` items, evenly spread, with the first and the last."""
    if len(items) <= places:
        return list(items)
    return [items[place * (len(items) - 1) // (places - 1)] for place in range(places)]


@dataclass(frozen=True, slots=True)
class Choice:
    """The step to resume from, and the damage to newer checkpoints that were passed over."""

    step: int
    damage: dict[int, str]


def choose_step(
    complete: Collection[int],
    damage_at: Callable[[int], str | None],
    *,
    folder: str,
    asked: int | None,
    fallback: bool,
) -> Choice:
    """The step that was asked for, else the latest; with ``fallback``, the newest whole one.

    Args:
        complete: Steps of which there is a complete checkpoint.
        damage_at: The damage to the checkpoint of a step. None: there is none.
        folder: Folder of the checkpoints.
        asked: The step that was asked for. None: the latest.
        fallback: Whether an older checkpoint may take the place of a damaged one.

    Raises:
        ConfigError: There is no complete checkpoint of the step that was asked for.
        ResumeError: The checkpoint is damaged, and no other may or can be used.
    """
    if asked is not None and asked not in complete:
        raise ConfigError(
            f"checkpoint.load_step is {asked}, expected the step of a complete checkpoint in "
            f"{folder}: {_listed(complete) or 'there is none'}."
        )
    damage: dict[int, str] = {}
    for step in sorted(complete, reverse=True):
        if asked is not None and step > asked:
            continue
        found = damage_at(step)
        if found is None:
            if damage and not fallback:
                raise _refused(damage, whole=step, folder=folder)
            return Choice(step, damage)
        damage[step] = found
    raise _refused(damage, whole=None, folder=folder)


def none_complete(folder: str, steps: Collection[int]) -> ResumeError:
    """The error for checkpoints that all lack the file that completes them."""
    return ResumeError(
        f"{folder}: found checkpoints of the steps {_listed(steps)}, none with its .metadata file, "
        f"so training cannot resume from any of them. A copy made without hidden files looks like "
        f"this: copy the .metadata files too. To train from step 1 instead, move or delete "
        f"{folder}, or set another checkpoint.folder."
    )


def _refused(damage: dict[int, str], *, whole: int | None, folder: str) -> ResumeError:
    first = next(iter(damage))
    if whole is None:
        others = " ".join(text for step, text in damage.items() if step != first)
        way_out = (
            f"No older checkpoint is whole{f' ({others})' if others else ''}. Copy step-{first} "
            f"again. To train from step 1 instead, move or delete {folder}."
        )
    else:
        way_out = (
            f"The newest whole checkpoint before it is step-{whole}. Copy step-{first} again, or "
            f"set checkpoint.fallback = true to resume from step-{whole}."
        )
    return ResumeError(f"Cannot resume from step-{first}. {damage[first]} {way_out}")


def _listed(steps: Collection[int]) -> str:
    return ", ".join(map(str, sorted(steps)))
