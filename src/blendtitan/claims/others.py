"""The claims of other jobs on a run's folder. Imported only where there are any."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from blendtitan.claims.held import CLAIMS, SILENCE_SECONDS, Holder
from blendtitan.errors import ConfigError, OutputError
from blendtitan.files import DamagedFileError, open_file, with_retries
from blendtitan.json_files import LIMIT_BYTES, parse_json
from blendtitan.storage.atomic_files import Process
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_POLL_SECONDS = 0.2

_WRITE_SECONDS = 5.0
"""Longest time for which a claim may exist without its content."""

_REPLICA = re.compile(r"torchft job (\S+) replica (\d+)")
"""In the job of a holder: its lighthouse and its number. Replicas of one job share a folder."""


class _Claim(NamedTuple):
    path: Path
    process: Process
    holder: Holder
    touched: int


def look_for_others(path: Path) -> None:
    """Delete the claims of jobs that are gone, and watch those of jobs that may be.

    Args:
        path: The claim of this process.

    Raises:
        ConfigError: Another job trains in the folder, or began before this one.
    """
    seen: dict[Path, tuple[int, float]] = {}
    while others := list(_rivals(path)):
        for other in others:
            now, is_local = time.monotonic(), other.process.is_local
            touched, since = seen.get(other.path, (other.touched, now))
            is_alive = is_local or other.touched != touched
            seconds = min(other.holder.silence_seconds, SILENCE_SECONDS)
            if other.process.has_ended() or (not is_alive and now - since > seconds):
                other.path.unlink(missing_ok=True)
                logger.warning("%s: taken over from %s, which is gone.", path.parent, other.holder)
                continue
            if is_alive and (other.holder.trains or other.path < path):
                raise _refusal(other)
            if not is_local and other.path not in seen:
                text = "%s: waiting up to %.0f s for a sign of life from %s, which may have ended."
                logger.warning(text, path.parent, seconds, other.holder)
            seen[other.path] = (other.touched, now if is_alive else since)
            time.sleep(_POLL_SECONDS)


def check_unclaimed(folder: Path, *, job: str = "") -> None:
    """Check that no process of this machine trains in a folder, without claiming it.

    If ``job`` names a replica, other replicas of its job may.

    Raises:
        ConfigError: One does.
    """
    mine = _REPLICA.search(job)
    for other in _others(folder.absolute() / "none"):
        if _is_sibling(other, mine):
            continue
        if other.holder.trains and other.process.is_local and not other.process.has_ended():
            raise _refusal(other)


def lost_claim(path: Path) -> OutputError:
    """The error for a claim of this process that another job, or a person, has deleted."""
    others = " and ".join(str(other.holder) for other in _others(path))
    return OutputError(
        f"{path}: this claim on the run's folder was deleted, as by another job after "
        f"{SILENCE_SECONDS:.0f} s without a sign of life. The folder is now claimed by "
        f"{others or 'no job'}. This job ends without another checkpoint."
    )


def _rivals(path: Path) -> Iterator[_Claim]:
    """The claims of other jobs. Those of this job's other replicas that have ended are deleted."""
    own = _read(path)
    mine = _REPLICA.search(own[1].decode()) if own else None
    for other in _others(path):
        if _is_sibling(other, mine):
            if other.process.has_ended():
                other.path.unlink(missing_ok=True)
            continue
        yield other


def _is_sibling(other: _Claim, mine: re.Match[str] | None) -> bool:
    """Whether a claim is that of another replica of the job of the replica ``mine``."""
    their = _REPLICA.search(other.holder.job)
    return bool(mine and their and mine[1] == their[1] and mine[2] != their[2])


def _refusal(other: _Claim) -> ConfigError:
    return ConfigError(
        f"{other.path.parent}: another job trains in this folder: {other.holder}. Two jobs would "
        f"overwrite each other's checkpoints. Stop that job, wait until it has ended, or set "
        f"another job.dump_folder.",
        f"If there is no such job, as in a copy of its folder, delete {other.path}.",
    )


def _others(path: Path) -> Iterator[_Claim]:
    for other in sorted(path.parent.glob(CLAIMS)):
        process = Process.of_name(other.stem.rpartition("_")[2])
        if other != path and process is not None and (claim := _claim(other, process)) is not None:
            yield claim


def _claim(path: Path, process: Process) -> _Claim | None:
    """A claim. None: it does not exist. One that is just being written is read again."""
    end = time.monotonic() + _WRITE_SECONDS
    while (found := _read(path)) is not None:
        with suppress(DamagedFileError):
            return _Claim(path, process, parse_json(found[1], Holder), found[0])
        if process.has_ended() or time.monotonic() > end:
            return _Claim(path, process, Holder(pid=process.pid), found[0])
        time.sleep(0.01)
    return None


def _read(path: Path) -> tuple[int, bytes] | None:
    """The time at which a claim was touched last, and its content. None: it does not exist."""

    def read() -> tuple[int, bytes]:
        # Opened each time, because NFS asks its server only then.
        with open_file(path) as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read(LIMIT_BYTES)

    try:
        return with_retries(read, path=str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read: {error.strerror}. It names a job that trains in this folder. "
            f"Make it readable, or delete it if there is no such job."
        ) from error
