"""A name for each process, from which others can tell whether it has ended."""

import hashlib
import os
import socket
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

_RANDOM = uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one machine. Its name is unique, although process ids are used again."""

    machine: str
    """Digest of the machine, its last start and the container: of all that shares process ids."""

    pid: int

    started: str
    """When the process began, in ticks of its machine."""

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(_machine(), os.getpid(), _current_start(os.getpid()))

    @classmethod
    def of_name(cls, name: str) -> Self | None:
        """The process that a name stands for. None: the text is not such a name."""
        parts = name.split("-")
        if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit()):
            return None
        # No process id is longer; int() would refuse thousands of digits.
        return cls(parts[0], int(parts[1][:18]), parts[2])

    @property
    def name(self) -> str:
        """Letters, digits and hyphens only."""
        return f"{self.machine}-{self.pid}-{self.started}"

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this machine, so that ``has_ended`` knows its end."""
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
        # Where nobody waits for a killed process, as in many containers, it stays in the table.
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
