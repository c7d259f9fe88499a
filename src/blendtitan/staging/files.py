"""Files of shards that are read from staged blocks where these exist, else directly."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.files import open_regular, url_of
from blendtitan.staging.blocks import owner_of, salt_of
from blendtitan.staging.folder import shard_name
from blendtitan.storage.reader import OpenFile
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


@dataclass(slots=True)
class Counts:
    """Bytes since the start of this process."""

    read: int = 0
    """Bytes of windows, as the loader read them."""
    direct: int = 0
    """Bytes that were fetched to read them."""
    blocks: int = 0
    """Bytes that were fetched as blocks."""
    windows: int = 0
    """Bytes that were fetched as windows, ahead of reading."""
    on_disk: int = 0
    """Bytes of the blocks and windows on the disk now."""

    @property
    def fetched(self) -> int:
        """Bytes fetched in any way."""
        return self.direct + self.blocks + self.windows

    def __str__(self) -> str:
        mb = {name: f"{num_bytes / 1e6:,.1f} MB" for name, num_bytes in asdict(self).items()}
        return (
            f"Staging on this node: {self.fetched / max(1, self.read):.2f} bytes fetched per byte "
            f"read. Read: {mb['read']}. Fetched: {mb['blocks']} as blocks, {mb['windows']} as "
            f"windows ahead, {mb['direct']} directly. On the disk: {mb['on_disk']}."
        )


@dataclass(slots=True)
class Stage:
    """The staged blocks of a node, as each of its processes reads them. Threads may share it."""

    folders: Sequence[Path]
    """The folder of each process."""
    block_bytes: int
    counts: Counts = field(default_factory=Counts)
    is_readable: bool = True
    """Whether the disk still answers."""
    _has_warned: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, path: str) -> OpenFile:
        """Open a file of a shard; errors as ``OpenFile.open``."""
        if not path.endswith(".bin"):
            return OpenFile.open(path)
        if url_of(path):
            from blendtitan.staging.remote_file import StagedRemoteFile

            file: StagedRemoteFile | StagedFile = StagedRemoteFile.open(path)
            name = shard_name(file.path, file.num_bytes, file.found.version)
        else:
            file = StagedFile.open(path)
            found = os.fstat(file.fd)
            version = f"{found.st_mtime_ns} {found.st_ino}"
            name = shard_name(os.path.abspath(path), file.num_bytes, version)
        file.staged = StagedBlocks(self, name, salt_of(path), file.num_bytes)
        return file

    def count(self, **num_bytes: int) -> None:
        """Add to the counts."""
        with self._lock:
            for name, more in num_bytes.items():
                setattr(self.counts, name, getattr(self.counts, name) + more)

    def warn(self, problem: str) -> None:
        """Warn once that reads are direct."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning("%s. What is not staged is read directly.", problem)


@dataclass(frozen=True, slots=True)
class StagedBlocks:
    """The staged blocks of one ``.bin``."""

    stage: Stage
    name: str
    salt: int
    file_bytes: int

    def size(self, number: int) -> int:
        """Bytes of a block."""
        return min(self.stage.block_bytes, self.file_bytes - self.start(number))

    def start(self, number: int) -> int:
        """Offset of a block."""
        return number * self.stage.block_bytes

    def paths(self, number: int, begin: int, length: int) -> tuple[str, str]:
        """The paths of a block, and of a part of a window in it, if they are staged."""
        folders = self.stage.folders
        folder = f"{folders[owner_of(self.salt, number, len(folders))]}/{self.name}"
        return f"{folder}/{number}", f"{folder}/{window_name(begin, length)}"

    def missing(self, at: int, num_bytes: int) -> Iterator[tuple[int, int]]:
        """Offsets and lengths of the parts of a read that are not staged."""
        return _joined(part[1:] for part in self._parts(at, num_bytes) if not self._has(*part))

    def read_into(self, view: memoryview, at: int) -> Iterator[tuple[int, int]]:
        """Fill a buffer from offset ``at`` on; return the parts not staged, as ``missing``."""
        self.stage.count(read=len(view))
        return _joined(
            (begin, length)
            for number, begin, length in self._parts(at, len(view))
            if not self._read(number, view[begin - at :][:length], begin)
        )

    def _has(self, number: int, begin: int, length: int) -> bool:
        paths = self.paths(number, begin, length)
        return self.stage.is_readable and any(map(os.path.exists, paths))

    def _read(self, number: int, view: memoryview, begin: int) -> bool:
        """Read a part of a window. False: it is not staged, or cannot be read."""
        block, window = self.paths(number, begin, len(view))
        return self._read_file(
            block, view, begin - self.start(number), self.size(number)
        ) or self._read_file(window, view, 0, len(view))

    def _read_file(self, path: str, view: memoryview, at: int, size: int) -> bool:
        if not self.stage.is_readable:
            return False
        try:
            fd, found = open_regular(path)
            try:
                if found == size:
                    found = os.preadv(fd, [view], at)
                    if found == len(view):
                        return True
            finally:
                os.close(fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.stage.is_readable = False
            self.stage.warn(f"{path}: cannot be read ({error.strerror}), so staging ends")
            return False
        self.stage.warn(f"{path}: found {found:,} bytes, expected {size:,}")
        return False

    def _parts(self, at: int, num_bytes: int) -> Iterator[tuple[int, int, int]]:
        """The parts of a read in each block: its number, the offset, and the bytes."""
        size, end = self.stage.block_bytes, at + num_bytes
        for number in range(at // size, -(-end // size)):
            begin = max(at, number * size)
            yield number, begin, min(end, (number + 1) * size) - begin


def window_name(begin: int, length: int) -> str:
    """The name of the staged part of a window."""
    return f"{begin}-{length}"


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, those that touch as one."""
    last: tuple[int, int] | None = None
    for at, num_bytes in spans:
        if last is not None and sum(last) == at:
            last = last[0], last[1] + num_bytes
            continue
        if last is not None:
            yield last
        last = at, num_bytes
    if last is not None:
        yield last


class StagedFile(OpenFile):
    """A local file, on a slow file system."""

    __slots__ = ("staged",)

    staged: StagedBlocks

    @classmethod
    def open(cls, path: str) -> "StagedFile":
        """As ``OpenFile.open``."""
        file = super().open(path)
        assert isinstance(file, cls)
        return file

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """As ``OpenFile.read_into``."""
        view: memoryview[Any] = buffer.data.cast("B")
        for begin, length in self.staged.read_into(view, at):
            rest = np.frombuffer(view[begin - at :][:length], np.uint8)
            super().read_into(rest, at=begin)
            self.staged.stage.count(direct=length)

    def fetch_staged(self, at: int, num_bytes: int) -> bytes:
        """Bytes to be staged, from the file itself."""
        data = np.empty(num_bytes, np.uint8)
        super().read_into(data, at=at)
        return data.tobytes()
