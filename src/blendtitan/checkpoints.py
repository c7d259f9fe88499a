"""Checkpoints on disk: their contents, visible damage, and the choice of one to resume from.

A distributed checkpoint of PyTorch is a folder of ``.distcp`` files, and a ``.metadata`` file that
gives the place of each item: a tensor, or a value such as the loader's state. An item is a zip
archive of its own, as ``torch.save`` writes it. The files are read without PyTorch, and nothing in
them is executed.

The check finds a ``.metadata`` that is missing, empty, cut or overwritten; files that are missing
or too short; items whose first or last bytes are not those of an archive, because part of a file
never reached the disk; a damaged training step or loader state; and a folder renamed to another
step. It looks at up to ``_MOST_PLACES`` items, but at least ``_FEWEST_PER_FILE`` in each file,
always the first and the last. It does not find bytes that changed inside a tensor.

Source: ``torch.distributed.checkpoint.filesystem`` and ``torch.save`` of PyTorch 2.13 to 2.15.
"""

import io
import os
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from blendtitan.errors import ConfigError, ResumeError
from blendtitan.files import io_map, open_file, open_regular, read_file

T = TypeVar("T")
_MOST_VALUE_BYTES = 256 << 20


class _Shell:
    """An object of any class, with its attributes and without its behaviour."""

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


def unpickle_shells(data: bytes) -> Any:
    """The pickled object, with a shell in place of everything but Python's own plain types.

    Raises:
        Exception: Any error, for bytes that are not a pickle.
    """
    return _ShellUnpickler(io.BytesIO(data)).load()


METADATA = ".metadata"
"""The file that lists the items. It is written last, so only complete checkpoints have one."""


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor, a part of one, or a value."""

    name: str
    file: str
    offset: int
    length: int
    is_archive: bool
    """Whether it is stored in the form of ``torch.save``, without compression."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The items that ``.metadata`` lists."""

    folder: Path
    items: tuple[Item, ...]

    @classmethod
    def read(cls, folder: Path) -> "Contents":
        """Read the ``.metadata`` of a checkpoint.

        Raises:
            ResumeError: The file is missing or damaged.
        """
        path = folder / METADATA
        if not path.is_file():
            raise ResumeError(f"{path}: is missing, or is not a file.")
        data = read_file(path)
        return cls(folder, _understood(lambda: _items(data), str(path), data))

    def value(self, name: str) -> Any:
        """A stored value of Python's plain types. None: the checkpoint has no such value.

        Raises:
            ResumeError: Its bytes are damaged.
        """
        item = next((item for item in self.items if item.name == name), None)
        if item is None:
            return None
        path = self.folder / item.file
        if not path.is_file():
            raise ResumeError(f"{path}: is missing, or is not a file.")
        if item.length > _MOST_VALUE_BYTES:
            raise ResumeError(
                f"{path}: {name!r} has {item.length:,} bytes, expected at most "
                f"{_MOST_VALUE_BYTES:,}."
            )
        with open_file(path) as file:
            file.seek(item.offset)
            data = file.read(item.length)
        where = f"{path}: {name!r}, from byte {item.offset:,} on,"
        return _understood(lambda: _unarchived(data), where, data)


def _items(data: bytes) -> tuple[Item, ...]:
    return tuple(_item(key, at) for key, at in unpickle_shells(data).storage_data.items())


def _item(key: Any, at: Any) -> Item:
    name, file, span = key.fqn, at.relative_path, (at.offset, at.length)
    if not (isinstance(name, str) and isinstance(file, str) and Path(file).name == file):
        raise ValueError(f"an item {name!r} in the file {file!r}")
    if not all(type(number) is int and number >= 0 for number in span):
        raise ValueError(f"an item {name!r} at {span}")
    return Item(name, file, *span, is_archive=not getattr(at, "transform_descriptors", None))


def _unarchived(data: bytes) -> Any:
    archive = zipfile.ZipFile(io.BytesIO(data))
    (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    num_bytes = archive.getinfo(pickled).file_size
    if num_bytes > len(data):  # torch.save does not compress
        raise ValueError(f"{num_bytes:,} bytes in an archive of {len(data):,}")
    return unpickle_shells(archive.read(pickled))


def _understood(understand: Callable[[], T], where: str, data: bytes) -> T:
    """The result of ``understand``; if it fails, an error that describes ``data``."""
    try:
        return understand()
    except MemoryError:
        raise
    except Exception as error:
        # On arbitrary bytes, the pickle machine may raise any error.
        if not data:
            found = "is empty"
        elif not any(data):
            found = f"holds {len(data):,} zero bytes"
        else:
            found = f"cannot be parsed ({type(error).__name__}: {error})"
        raise ResumeError(f"{where} {found}.") from error


_MOST_PLACES = 4096
_FEWEST_PER_FILE = 8
_ARCHIVE_HEAD, _ARCHIVE_END = b"PK\x03\x04", b"PK\x05\x06"

STEP_ITEM = "train_state.step"
"""TorchTitan's name for the number of trained steps."""


# The record that ends an archive has this size, because torch.save writes no comment into it.
_END_BYTES = 22


def damage_to(folder: Path, *, step: int | None, values: Sequence[str] = ()) -> str | None:
    """The damage to a checkpoint, as a sentence. None: no visible damage.

    Its training state must be that of ``step``, unless that is None. ``values`` must be readable
    where the checkpoint has them.
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
            f"{contents.folder}: holds only a model, no training state, as "
            f"checkpoint.last_save_model_only = true saves it."
        )
    # Other releases of TorchTitan keep it as a tensor.
    if isinstance(found, int) and found != step:
        raise ResumeError(
            f"{contents.folder}: holds the state after step {found:,}, but its name says "
            f"step {step:,}. The folder was renamed: rename it back to step-{found}."
        )


def _spread(items: Sequence[Item], places: int) -> list[Item]:
    """Up to ``places`` items, evenly spread, including the first and the last."""
    if len(items) <= places:
        return list(items)
    return [items[place * (len(items) - 1) // (places - 1)] for place in range(places)]


@dataclass(frozen=True, slots=True)
class Choice:
    """The step to resume from, and the damage to skipped newer checkpoints."""

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
    """The requested step, or else the latest; with ``fallback``, the newest whole checkpoint.

    Raises:
        ConfigError: There is no complete checkpoint of the requested step.
        ResumeError: The checkpoint is damaged, and no other may or can be used.
    """
    if asked is not None and asked not in complete:
        raise ConfigError(
            f"checkpoint.load_step is {asked}, expected the step of a complete checkpoint in "
            f"{folder}: {_listed(complete) or 'found none'}."
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
        f"so training cannot resume from any of them. This happens if a folder is copied without "
        f"hidden files: copy the .metadata files too. To train from step 1 instead, move or delete "
        f"{folder}, or set another checkpoint.folder."
    )


def _refused(damage: dict[int, str], *, whole: int | None, folder: str) -> ResumeError:
    first = next(iter(damage))
    if whole is None:
        others = " ".join(text for step, text in damage.items() if step != first)
        way_out = (
            f"No older checkpoint is intact{f' ({others})' if others else ''}. Copy step-{first} "
            f"again. To train from step 1 instead, move or delete {folder}."
        )
    else:
        way_out = (
            f"The newest intact checkpoint before it is step-{whole}. Copy step-{first} again, or "
            f"set checkpoint.fallback = true to resume from step-{whole}."
        )
    return ResumeError(f"Cannot resume from step-{first}. {damage[first]} {way_out}")


def _listed(steps: Collection[int]) -> str:
    return ", ".join(map(str, sorted(steps)))
