"""The folder in which a process keeps the blocks that it stages, and those of its neighbours.

``PATH/blendtitan-BOOT-PROCESS-NUMBER/SHARD/`` has blocks, named by their numbers, and windows,
named by their offsets and lengths. A process locks its folder while it lives, so that
runs that share ``data_stage_path`` have folders of their own, and the next run takes over the
blocks of one that was killed. BOOT is a digest of the machine's last start: an unfinished write
before it may have left anything in a block. SHARD is a digest of the path, the size and the version
of a ``.bin``: a replaced file has another folder.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import BinaryIO, Self

from blendtitan.errors import OutputError
from blendtitan.files import read_text

_CLAIM = "claim"
_NOTE_BYTES = 200
_SILENT_SECONDS = 3600.0
"""Time without a note after which a folder from before the machine's last start is deleted. If
several machines share the disk, one may not see the locks of another."""


@dataclass(frozen=True, slots=True)
class StageFolder:
    """The folder of this process, locked until it ends."""

    path: Path
    claim_file: BinaryIO
    """Holds the lock."""

    @classmethod
    def claim(cls, root: Path, *, process: int) -> Self:
        """Make a folder below ``root``, or take over one of an ended process.

        Args:
            root: ``data_stage_path``. It is made if its parent exists.
            process: Number of this process among those of its node.

        Raises:
            OutputError: It cannot be written to, or its file system has no locks.
        """
        try:
            root.mkdir(exist_ok=True)
            for number in count():
                path = root / f"blendtitan-{_boot()}-{process}-{number}"
                file = _locked(path)
                if file is not None:
                    os.utime(path / _CLAIM)
                    return cls(path, file)
        except OSError as error:
            raise OutputError(
                f"data_stage_path is {root}, which cannot be used ({error.strerror}). Expected a "
                f"folder on a disk of this node that may be written to. Set it to one, or leave "
                f"data_stage_path out."
            ) from error
        raise AssertionError

    @property
    def disk(self) -> str:
        """The disk, as this machine knows it."""
        found = self.path.parent.stat()
        return f"{_boot()} {found.st_dev} {found.st_ino}"

    def leftovers(self) -> dict[tuple[str, str], int]:
        """Bytes of the blocks of the process that had the folder before, by shard and name."""
        found: dict[tuple[str, str], int] = {}
        for shard in os.scandir(self.path):
            for block in os.scandir(shard) if shard.is_dir() else ():
                if block.name.isdecimal():
                    found[shard.name, block.name] = block.stat().st_size
                else:
                    os.unlink(block)  # a window, or one that was being written
        return found

    def keep(self, shard: str, name: str, data: bytes) -> None:
        """Write a block or a window, which appears whole or not at all.

        Raises:
            OSError: The disk is full or lost.
        """
        folder = self.path / shard
        path = folder / f"{name}.new"
        try:
            # Not its parents: if the disk is lost, they stay so.
            folder.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.write(data)
            path.rename(folder / name)
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise

    def drop(self, shard: str, name: str) -> None:
        """Delete a block or a window, which may be gone already."""
        with suppress(OSError):
            (self.path / shard / name).unlink()

    def note(self, text: str) -> None:
        """Write a short text for the neighbours, unless the folder is released."""
        with suppress(OSError, ValueError):
            os.pwrite(self.claim_file.fileno(), text.encode().ljust(_NOTE_BYTES), 0)

    def delete(self) -> None:
        """Delete the folder, at the end of a run that needs it no more."""
        shutil.rmtree(self.path, ignore_errors=True)

    def release(self) -> None:
        """Let another process take the folder over."""
        self.claim_file.close()


@cache
def _boot() -> str:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # not on Linux
        text = socket.gethostname()
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _locked(path: Path) -> BinaryIO | None:
    """A file that locks a folder until it is closed. None: another process has the folder."""
    try:
        path.mkdir(exist_ok=True)
        (path / _CLAIM).touch()
        file = (path / _CLAIM).open("r+b", buffering=0)
    except FileNotFoundError:
        if not path.parent.exists():
            raise
        return None  # deleted by a neighbour
    except PermissionError:
        if not path.exists():
            raise
        return None  # of another user
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return file
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
    file.close()
    return None


def note_of(folder: Path) -> str:
    """The text that the process of a folder has written. Empty: none yet, or the disk is lost."""
    with suppress(OSError):
        return read_text(folder / _CLAIM).rstrip()
    return ""


def delete_abandoned(root: Path, used: Collection[Path]) -> None:
    """Delete folders of ended processes that no process of this run has taken over."""
    of_machine = f"blendtitan-{_boot()}-"
    for path in root.glob("blendtitan-*"):
        if path in used:
            continue
        with suppress(OSError):
            silence = time.time() - (path / _CLAIM).stat().st_mtime
            if path.name.startswith(of_machine) or silence > _SILENT_SECONDS:
                file = _locked(path)
                if file is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    file.close()


def shard_name(path: str, num_bytes: int, version: str) -> str:
    """The name of the folder of a ``.bin``'s blocks."""
    text = "\0".join((path, str(num_bytes), version))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
