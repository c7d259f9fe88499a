"""Files that appear whole or not at all."""

import glob
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Self

from blendtitan.files import open_file

_RANDOM = uuid.uuid4().hex[:8]
_NOTE_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Process:
    """A process of one machine. Its name is unique, although process ids are used again."""

    machine: str
    """Digest of the machine, its last start and the container, which together own process ids."""

    pid: int

    started: str
    """Start time of the process, in ticks of its machine."""

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(_machine(), os.getpid(), _current_start(os.getpid()))

    @classmethod
    def of_name(cls, name: str) -> Self | None:
        """The process of this name. None: the text is not a process's name."""
        parts = name.split("-")
        if len(parts) != 3 or not all(part.isascii() and part.isalnum() for part in parts):
            return None
        if not parts[1].isdigit():
            return None
        # No process id is longer; int() would refuse thousands of digits.
        return cls(parts[0], int(parts[1][:18]), parts[2])

    @property
    def name(self) -> str:
        """Letters, digits and hyphens only."""
        return f"{self.machine}-{self.pid}-{self.started}"

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this machine, so that ``has_ended`` can tell."""
        return self.machine == _machine()

    def has_ended(self) -> bool:
        """Whether the process is known to have ended; False for one of another machine."""
        if not self.is_local:
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
        state, started = _state_and_start(self.pid)
        # If no parent waits for a killed process, as in many containers, it stays in the table.
        return state == "Z" or (started is not None and started != self.started)


@cache
def _machine() -> str:
    parts = [socket.gethostname()]
    # Containers may share the host's name, and not its process ids. Neither file is on macOS.
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:8]


@cache
def _current_start(pid: int) -> str:
    return _state_and_start(pid)[1] or _RANDOM


def _state_and_start(pid: int) -> tuple[str | None, str | None]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None, None


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn the system's errors of writing ``path`` in the block into ours.

    The system names neither the file nor the disk when a write fails.

    Raises:
        OutputError: The disk is full or does not let the file be written, or a folder has its
            name.
    """
    try:
        yield
    except OSError as error:
        from blendtitan.storage.write_faults import write_fault

        fault = write_fault(path, error)
        if fault is not None:
            raise fault from error
        raise


def read_note(path: Path) -> str:
    """The beginning of a text file, for messages; an error as text."""
    try:
        with open_file(path) as file:
            return file.read(_NOTE_BYTES).decode(errors="replace").strip()
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})."


_OLD_SECONDS = 3600.0
"""Age at which a partial file of another machine is deleted."""


def remove_file_partials(path: Path) -> None:
    """Delete partial files of killed processes. Those of living processes stay."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.partial-*"):
        if _is_abandoned(partial):
            partial.unlink(missing_ok=True)


def _is_abandoned(partial: Path) -> bool:
    process = Process.of_name(partial.name.rpartition(".partial-")[2])
    if process is not None and process.is_local:
        return process.has_ended()
    try:
        return time.time() - partial.stat().st_mtime > _OLD_SECONDS
    except FileNotFoundError:
        return False


@contextmanager
def replaced_file(path: Path, *, durable: bool = True) -> Generator[BinaryIO]:
    """Open a file for writing that appears, or replaces an old one, when the block ends.

    Readers see the old content or the new one, never a part. An error leaves the old one. A
    ``durable`` file survives a power cut from then on, which takes milliseconds.
    """
    partial = partial_path(path)
    with writing(path), partial.open("wb") as file:
        try:
            yield file
            if durable:
                flush_and_close(file)
            file.close()
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    if durable:
        sync_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new one, never a part."""
    with replaced_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a file of a run's folder, which need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_file_partials(path)
    write_atomically(path, text.encode())


def partial_path(path: Path) -> Path:
    """Path at which this process writes a file until it is complete."""
    return Path(f"{path}.partial-{Process.current().name}")


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_and_close(file: BinaryIO) -> None:
    """Close a file whose content then survives a power cut."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
