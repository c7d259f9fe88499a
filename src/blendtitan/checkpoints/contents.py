"""The items of a distributed checkpoint of PyTorch: tensors, and values such as the loader's state.

A checkpoint is a folder of ``.distcp`` files, and a ``.metadata`` file that lists where each item
lies. An item is a zip archive of its own, as ``torch.save`` writes it. The files are read without
PyTorch, and nothing in them is executed.

Source: ``torch.distributed.checkpoint.filesystem`` and ``torch.save`` of PyTorch 2.13 to 2.15.
"""

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from blendtitan.errors import ResumeError
from blendtitan.files import open_file, read_file

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
    """Whether it is stored as ``torch.save`` writes it, without compression around it."""


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
    """The result of ``understand``; where it fails, an error that says how ``data`` looks."""
    try:
        return understand()
    except MemoryError:
        raise
    except Exception as error:
        # Whatever bytes are there instead, the pickle machine may raise anything.
        if not data:
            found = "is empty"
        elif not any(data):
            found = f"holds {len(data):,} zero bytes"
        else:
            found = f"cannot be understood ({type(error).__name__}: {error})"
        raise ResumeError(f"{where} {found}.") from error
