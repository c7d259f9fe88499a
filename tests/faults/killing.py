"""Processes killed at random moments, as often as ``BLENDTITAN_KILLS`` says."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

TIMEOUT_S = 120


def num_kills(default: int) -> int:
    """How often a test kills; ``BLENDTITAN_KILLS=50`` is for a thorough run."""
    return int(os.environ.get("BLENDTITAN_KILLS", default))


def tree(folder: Path, *, but: Collection[str] = ()) -> dict[str, bytes]:
    """Content of every file below a folder, but for some names, by path.

    Records of how documents end are left out: they hold the times of the files they describe.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but and not path.name.endswith(".ends.json")
    }


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


class KilledCommand:
    """A command of ``blendtitan`` that is killed, with all its processes, while it works."""

    def __init__(self, *words: str | Path, output: Path) -> None:
        self._words = [sys.executable, "-m", "blendtitan.cli", *map(str, words)]
        self._output = output
        self._rng = random.Random(5)
        self._begins = self._ends = 0.0
        self.struck: list[float] = []
        """When it was killed: 0 is when it began to write, 1 when it would have ended."""

    def start(self) -> subprocess.Popen[str]:
        """Start it, in a process group of its own."""
        return subprocess.Popen(
            self._words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> None:
        """Let it end by itself."""
        _, stderr = (process := self.start()).communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, stderr

    def run_and_measure(self) -> None:
        """Let it end by itself, and see when it works."""
        before, start = _state(self._output), time.monotonic()
        process = self.start()
        wait_until(lambda: _state(self._output) != before)
        self._begins = time.monotonic() - start
        _, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, stderr
        self._ends = time.monotonic() - start

    def kill_at_random_moments(
        self, count: int, *, after_kill: Callable[[], None], after_end: Callable[[], None]
    ) -> None:
        """Start it again and again, until it was killed so often while it worked.

        Args:
            count: How often.
            after_kill: Called after each.
            after_end: Called when it ended before its moment came; is to undo its work.
        """
        while len(self.struck) < count:
            part = self._rng.uniform(0, 1)
            process = self.start()
            try:
                process.communicate(timeout=self._begins + part * (self._ends - self._begins))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                self.struck.append(part)
                after_kill()
            else:
                assert process.returncode == 0
                after_end()


def _state(folder: Path) -> list[tuple[str, int]]:
    """Names and times of change of all files below a folder, which a process may be changing."""
    found: list[tuple[str, int]] = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # it had another name a moment later
            found.append((str(path), path.lstat().st_mtime_ns))
    return found
