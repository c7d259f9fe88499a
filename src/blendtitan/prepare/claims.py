"""Who does what: a claim is a file that only one process can make.

Claims save double work, no more: what is claimed may be done twice and gives the same. So they
need no lock, no server and no clock that machines share.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from blendtitan.errors import OutputError
from blendtitan.regular_files import open_file
from blendtitan.storage.disk import written

LEASE_SECONDS = 60.0
"""How long the holder of a claim may give no sign of life before others take it over."""


_MOST_CLAIM_BYTES = 1 << 12


class Claims:
    """The claims of one process on work that others may do as well."""

    def __init__(self, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._lease_seconds = lease_seconds
        # When each claim of others was seen with a new heartbeat, by this process's clock: the
        # clocks of file servers and other machines need not agree with it.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._held: Path | None = None
        threading.Thread(target=self._beat, daemon=True).start()

    @contextmanager
    def claimed(self, path: Path) -> Generator[bool]:
        """Whether the claim is this process's; it is given back when the block ends.

        A claim is taken over from a process that has ended, on this machine, and from one that
        gave no sign of life for a lease, on any. In a folder that is gone, there is no claim.
        """
        if not (_made(path) or (self._is_abandoned(path) and _taken_over(path))):
            yield False
            return
        self._held = path
        try:
            yield True
        finally:
            self._held = None
            path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while True:
            time.sleep(self._lease_seconds / 6)
            # The claim may just be given back, or its folder removed.
            with suppress(OSError, TypeError):
                os.utime(self._held)  # pyright: ignore[reportArgumentType]

    def _is_abandoned(self, path: Path) -> bool:
        try:
            heartbeat, holder = path.stat().st_mtime_ns, _holder(path)
        except FileNotFoundError:
            return False
        if _has_ended(holder):
            return True
        now = time.monotonic()
        known, since = self._seen.get(path, (None, now))
        if heartbeat != known:
            self._seen[path] = heartbeat, now
            return False
        return now - since > self._lease_seconds


def _made(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except (FileExistsError, FileNotFoundError):
        return False
    try:
        with written(path), open(fd, "wb") as file:
            file.write(_this_process())
    except OutputError:
        # A full disk may have room for a name, but not for whose it is: nobody could take it over
        # before a lease has passed.
        path.unlink(missing_ok=True)
        raise
    return True


def _taken_over(path: Path) -> bool:
    partial = Path(f"{path}.{socket.gethostname()}-{os.getpid()}")
    try:
        with written(partial):
            partial.write_bytes(_this_process())
        partial.replace(path)
        # Of two that take it over at once, the last one has it.
        return _holder(path) == _this_process()
    except FileNotFoundError:
        return False


def _this_process() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()


def _holder(path: Path) -> bytes:
    """What a claim says; it may just be in writing, so its size says nothing."""
    with open_file(path) as file:
        return file.read(_MOST_CLAIM_BYTES)


def _has_ended(holder: bytes) -> bool:
    """Whether a process of this machine is known to have ended."""
    try:
        claim = json.loads(holder)
    except ValueError:  # It is just being written, or was when its holder was killed.
        return False
    if claim["host"] != socket.gethostname():
        return False
    try:
        os.kill(claim["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(claim["pid"])


def _is_zombie(pid: int) -> bool:
    # Where nobody waits for a killed process, as in many containers, it stays in the table.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
