"""Claims: files that only one process can create, to say who does which job.

Claims only avoid double work: a job that two processes do gives the same result. So they need no
lock, no server and no synchronised clocks.
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
from blendtitan.files import DamagedFileError
from blendtitan.json_files import read_json
from blendtitan.storage.atomic_files import Process, partial_path, writing

LEASE_SECONDS = 60.0
"""How long the holder of a claim may show no sign of life before others take it over."""

_UNREADABLE_SECONDS = 2.0
"""The same for a claim without a readable holder, who was killed while writing it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The content of a claim: whose it is."""

    host: str
    process: str

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(socket.gethostname(), Process.current().name)

    def has_ended(self) -> bool:
        """Whether it is known to have ended, which is possible for local processes only."""
        process = Process.of_name(self.process)
        return process is not None and process.has_ended()


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
    """How long files of others have been unchanged, by this process's own clock.

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

    Args:
        lease_seconds: How long holders may be silent.
        renewed: Other files to keep fresh while this process lives.
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
        """Whether this process got the claim, which it returns when the block ends.

        A claim is taken over from a local process that has ended, and from any process that
        showed no sign of life for a lease. In a folder that is gone, there is no claim.

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
        try:
            lease = self._lease_seconds
            try:
                if read_json(path, Holder).has_ended():
                    return True
            except DamagedFileError as error:
                if path.is_dir():
                    raise OutputError(
                        f"{path}: is a folder, expected a file that only `blendtitan tokenize` "
                        f"makes. Delete the folder, and run again."
                    ) from error
                lease = min(lease, _UNREADABLE_SECONDS)
            return self._silence.seconds(path) > lease
        except FileNotFoundError:
            return False


def _create(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except (FileExistsError, FileNotFoundError):
        return False
    try:
        with writing(path), open(fd, "wb") as file:
            file.write(orjson.dumps(asdict(Holder.current())))
    except OutputError:
        # A full disk may have room for the file's name but not for its holder. Nobody could take
        # over such a claim before a lease has passed.
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
