"""Claims: files that assign jobs to processes which work on one output at the same time.

Only one process can create a file. Claims only avoid double work, because a job that two processes
do gives the same result. So they need no lock, no server and no synchronised clocks.
"""

import os
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from blendtitan.errors import OutputError
from blendtitan.storage.atomic_files import Process, partial_path, read_note, writing

LEASE_SECONDS = 60.0
"""Seconds without a sign of life after which others take over a claim."""

_UNREADABLE_SECONDS = 2.0
"""The same for a claim without a readable holder, which was killed while writing it."""


class Heartbeat:
    """A thread that updates the times of some files regularly, as a sign of life."""

    def __init__(self, paths: Iterable[Path] = (), *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.paths = set(paths)
        self._seconds = lease_seconds / 6
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it: a process with threads must not be forked."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(self._seconds):
            for path in tuple(self.paths):
                # The claim may have been returned, or its folder removed.
                with suppress(OSError):
                    os.utime(path)


class Silence:
    """Time since files of others last changed, by this process's own clock.

    The clocks of file servers and other machines may differ from it.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def seconds(self, path: Path) -> float:
        """Seconds since this process first saw the file, or saw it change."""
        heartbeat, now = path.stat().st_mtime_ns, time.monotonic()
        known, since = self._seen.get(path, (None, now))
        if heartbeat != known:
            since = now
            self._seen[path] = heartbeat, now
        return now - since


class Claims:
    """The claims of one process on work that others could do as well.

    Holders may be silent for ``lease_seconds``. The ``renewed`` files are kept fresh, too.
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
        """Try to claim a file for the block; yields whether this process got it.

        A claim is taken over from a local process that has ended, and from any process that
        showed no sign of life for a lease. In a missing folder, nothing can be claimed.

        Raises:
            OutputError: The claim cannot be written.
        """
        if not (_create(path) or (self._is_abandoned(path) and _take_over(path))):
            yield False
            return
        self._heartbeat.paths.add(path)
        try:
            yield True
        finally:
            self._heartbeat.paths.discard(path)
            path.unlink(missing_ok=True)

    def _is_abandoned(self, path: Path) -> bool:
        if path.is_dir():
            raise OutputError(
                f"{path}: is a folder, expected a file of `blendtitan tokenize`. "
                f"Delete the folder, and run again."
            )
        holder = Process.of_name(read_note(path))
        if holder is not None and holder.has_ended():
            return True
        lease = self._lease_seconds if holder else min(self._lease_seconds, _UNREADABLE_SECONDS)
        with suppress(FileNotFoundError):
            return self._silence.seconds(path) > lease
        return False


def _create(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except (FileExistsError, FileNotFoundError):
        return False
    try:
        with writing(path), open(fd, "w") as file:
            file.write(Process.current().name)
    except OutputError:
        # A full disk may have room for the file's name but not for its holder. Such a claim would
        # block others for a lease.
        path.unlink(missing_ok=True)
        raise
    return True


def _take_over(path: Path) -> bool:
    """Replace an abandoned claim; False if another process was faster."""
    abandoned = partial_path(path)
    try:
        # Only one of several processes can rename the file; the others find none, or a new one.
        path.rename(abandoned)
        abandoned.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    return _create(path)
