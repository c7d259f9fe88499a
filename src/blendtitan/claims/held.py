"""The claim that this process holds on the folder of its run."""

import atexit
import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from blendtitan.files import open_file, with_retries
from blendtitan.storage.atomic_files import Process, writing

CLAIMS = "claim-*_*.json"
SILENCE_SECONDS = 60.0
"""Time without a sign of life after which a process of another machine counts as gone."""

_JOBS = {"Slurm": "SLURM_JOB_ID", "PBS": "PBS_JOBID"}
_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Holder:
    """The content of a claim."""

    host: str = "an unknown host"
    pid: int = 0
    job: str = ""
    since: str = ""
    silence_seconds: float = SILENCE_SECONDS
    trains: bool = False
    """Whether it has looked for other jobs and found none."""

    def __str__(self) -> str:
        job = f", {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@dataclass(frozen=True, slots=True)
class _Held:
    path: Path
    file: BinaryIO
    made: list[Path]
    """Folders that were made for it."""

    process: Process = field(default_factory=Process.current)
    is_released: threading.Event = field(default_factory=threading.Event)

    def write(self, holder: Holder) -> None:
        # In place, because a claim that another job has deleted must not appear again.
        self.file.seek(0)
        self.file.write(json.dumps(asdict(holder)).encode().ljust(_BYTES) + b"\n")

    def keep_fresh(self, seconds: float) -> None:
        with self.file:
            while not self.is_released.wait(seconds):
                with suppress(OSError):
                    os.utime(self.file.fileno())


_held: list[_Held] = []
"""A process holds one claim at most."""


def hold_claim(folder: Path, *, job: str = "", silence_seconds: float = SILENCE_SECONDS) -> None:
    """Claim a run's folder for this process, until ``release_claim`` or the end of the process.

    The claim names ``job``, beside the job of the scheduler.

    Raises:
        ConfigError: Another job trains there.
        OutputError: The claim cannot be written, or that of another job cannot be read.
    """
    release_claim()
    folder = folder.absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(made[-1] if made else folder):
        folder.mkdir(parents=True, exist_ok=True)
    name = f"claim-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}_{Process.current().name}.json"
    with writing(folder / name):
        held = _Held(folder / name, (folder / name).open("xb", buffering=0), made)
        _held.append(held)
        threading.Thread(target=held.keep_fresh, args=(silence_seconds / 6,), daemon=True).start()
        try:
            held.write(holder := _current(job, silence_seconds))
            if len(list(folder.glob(CLAIMS))) > 1:
                from blendtitan.claims.others import look_for_others

                look_for_others(held.path)
            held.write(replace(holder, trains=True))
            check_claim()
        except BaseException:
            release_claim()
            raise


def check_claim() -> None:
    """Check that the claim of this process still exists, if it has one.

    Raises:
        OutputError: It was deleted.
    """
    for path in (held.path for held in _held):
        try:
            # Opened, because NFS asks its server only then.
            with_retries(lambda path=path: open_file(path).close(), path=str(path))
        except FileNotFoundError as error:
            from blendtitan.claims.others import lost_claim

            raise lost_claim(path) from error


@atexit.register
def release_claim() -> None:
    """Give up the claim of this process, and delete folders that were made for it and are empty."""
    while _held:
        held = _held.pop()
        held.is_released.set()
        # A forked process inherits the list, but not the claim.
        if held.process == Process.current():
            with suppress(OSError):
                held.path.unlink()
                for folder in held.made:
                    folder.rmdir()


def _current(job: str, silence_seconds: float) -> Holder:
    jobs = [f"{k} job {os.environ[v]}" for k, v in _JOBS.items() if v in os.environ]
    job, since = " ".join([*jobs, job]).strip(), time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Holder(socket.gethostname(), os.getpid(), job, since, silence_seconds)
