"""One command: seconds from start to end, and the memory of all its processes."""

import hashlib
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from commands import Command

_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Measurement:
    """What one run of a command took. Memory that processes share is counted once."""

    command: Command
    seconds: float
    peak_bytes: int
    digest: str
    """Of the tokens written, empty where there are none."""

    @property
    def megabytes_per_second(self) -> float:
        """Millions of bytes of text per second."""
        return self.command.num_bytes / self.seconds / 1e6

    def __str__(self) -> str:
        command = self.command
        speed = f"{self.megabytes_per_second:.1f} MB/s, {self.peak_bytes / 1e6:.0f} MB"
        return f"{command.name}, {command.tokenizer}, {command.workers} workers: {speed}"


def measure(command: Command, *, cores: list[int]) -> Measurement:
    """Run a command on these cores alone.

    Raises:
        RuntimeError: It failed; the end of what it printed is in the message.
    """
    if command.output is not None:
        shutil.rmtree(command.output, ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        command.line,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | command.environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    printed, _ = process.communicate()
    seconds = time.perf_counter() - start
    watch.join()
    if process.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command.line)}: status {process.returncode}\n{printed[-4000:]}"
        )
    if command.own_clock:
        seconds = float(printed.split()[-1])
    return Measurement(command, seconds, peak[0], _digest(command.output))


def _watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], _tree_bytes(process.pid))
        time.sleep(_SAMPLE_SECONDS)


def _tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants; pages that several share are counted once."""
    folder = Path(f"/proc/{pid}")
    try:
        rollup = (folder / "smaps_rollup").read_text()
        children = [
            int(child)
            for task in (folder / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # It has ended.
        return 0
    own = [int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:")]
    return sum(own) + sum(map(_tree_bytes, children))


def _digest(output: Path | None) -> str:
    if output is None:
        return ""
    digest = hashlib.sha256()
    for path in sorted(output.rglob("*.bin")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
