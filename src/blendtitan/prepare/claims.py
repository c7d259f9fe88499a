"""Who does what: a claim is a file that only one process can make.

Claims avoid double work and nothing else: a job that two processes do gives the same result. So
they need no lock, no server and no clock that machines share.
"""

import os
import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import orjson

from blendtitan.errors import OutputError
from blendtitan.files import DamagedFileError, read_json
from blendtitan.storage.atomic_files import Process, partial_path, writing

LEASE_SECONDS = 60.0
"""How long the holder of a claim may give no sign of life before others take it over."""

_UNREADABLE_SECONDS = 2.0
"""The same for a claim that does not say whose it is: its holder was killed while writing it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a claim holds: whose it is."""

    host: str
    process: str

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(socket.gethostname(), Process.current().name)

    def has_ended(self) -> bool:
        """Whether it is known to have ended, which is known of processes of this machine."""
        process = Process.of_name(self.process)
        return process is not None and process.has_ended()


class Heartbeat:
    """A thread that sets the times of some files again and again, as a sign of life."""

    def __init__(self, paths: Iterable[Path] = (), *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.paths = set(paths)
        self._seconds = lease_seconds / 6
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for its end: a process with threads must not be copied."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(self._seconds):
            for path in tuple(self.paths):
                # The claim may just be given back, or its folder removed.
                with suppress(OSError):
                    os.utime(path)


class Silence:
    """For how long files of others have had the same time of change, by this process's clock.

    The clocks of file servers and other machines need not agree with it.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def seconds(self, path: Path) -> float:
        """Seconds since this process saw the file change, or saw it first.

        Raises:
            FileNotFoundError: It is gone.
        """
        heartbeat, now = path.stat().st_mtime_ns, time.monotonic()
        known, since = self._seen.get(path, (None, now))
        if heartbeat != known:
            since = now
            self._seen[path] = heartbeat, now
        return now - since


class Claims:
    """The claims of one process on work that others may do as well.

    Args:
        lease_seconds: How long holders may be silent.
        renewed: Other files that show, for as long as this process lives, that it does.
    """

    def __init__(
        self, *, lease_seconds: float = LEASE_SECONDS, renewed: Iterable[Path] = ()
    ) -> None:
        self._lease_seconds = lease_seconds
        self._silence = Silence()
        self._heartbeat = Heartbeat(renewed, lease_seconds=lease_seconds)

    def close(self) -> None:
        """End the thread that keeps claims fresh."""
        self._heartbeat.stop()

    @contextmanager
    def claimed(self, path: Path) -> Generator[bool]:
        """Whether the claim is this process's; it is given back when the block ends.

        A claim is taken over from a process that has ended, on this machine, and from one that
        gave no sign of life for a lease, on any. In a folder that is gone, there is no claim.

        Raises:
            OutputError: The claim cannot be written.
        """
        if not (_made(path) or (self._is_abandoned(path) and _taken_over(path))):
            yield False
            return
        self._heartbeat.paths.add(path)
        try:
            yield True
        finally:
            self._heartbeat.paths.discard(path)
            path.unlink(missing_ok=True)

    def _is_abandoned(self, path: Path) -> bool:
        try:
            lease = self._lease_seconds
            try:
                if read_json(path, Holder).has_ended():
                    return True
            except DamagedFileError:
                _check_no_folder(path)
                lease = min(lease, _UNREADABLE_SECONDS)
            return self._silence.seconds(path) > lease
        except FileNotFoundError:
            return False


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        raise OutputError(
            f"{path}: is a folder, expected a file that only `blendtitan tokenize` makes. Delete "
            f"the folder, and run again."
        )


def _made(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except (FileExistsError, FileNotFoundError):
        return False
    try:
        with writing(path), open(fd, "wb") as file:
            file.write(orjson.dumps(asdict(Holder.current())))
    except OutputError:
        # A full disk may have room for a name, but not for whose it is: nobody could take it over
        # before a lease has passed.
        path.unlink(missing_ok=True)
        raise
    return True


def _taken_over(path: Path) -> bool:
    """Remove an abandoned claim and make one anew; False where another process was faster."""
    abandoned = partial_path(path)
    try:
        # Of several processes one can rename the file; the others find none, or a new one.
        path.rename(abandoned)
        abandoned.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    return _made(path)
