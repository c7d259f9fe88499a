"""Shards of inputs that were removed since they were made.

Several commands may fill one output. So a shard counts as left over only if its input lay below
one of the inputs that are now given, and is not there any more.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from blendtitan.prepare.finding import WILDCARDS
from blendtitan.prepare.inputs import REJECTS_SUFFIX, WORK_FOLDER, file_system, is_url, readable
from blendtitan.prepare.join import read_record
from blendtitan.storage.writer import remove_shard


@dataclass(frozen=True, slots=True)
class RemovedInput:
    """An input that is gone, and the shard that is left of it."""

    location: str
    prefix: Path
    record_path: Path
    documents: int

    def delete_shard(self) -> None:
        """Delete the shard and all that belongs to it; the record last."""
        remove_shard(self.prefix)
        Path(f"{self.prefix}{REJECTS_SUFFIX}").unlink(missing_ok=True)
        self.record_path.unlink(missing_ok=True)


def removed_inputs(
    output: Path, inputs: Sequence[str | Path], planned: Iterable[Path]
) -> Iterator[RemovedInput]:
    """The inputs below ``inputs`` of which a shard is left, though they are gone.

    Args:
        output: Folder of the shards.
        inputs: Files, folders and patterns that are given now.
        planned: Prefixes of the shards that they become.
    """
    kept = set(planned)
    work = output / WORK_FOLDER
    for path in sorted(work.rglob("*.jsonl")):
        prefix = output / str(path.relative_to(work)).removesuffix(".jsonl")
        record = None if prefix in kept else read_record(prefix, path)
        if record is None:
            continue
        location = str(record.source["input"])
        if any(_covers(str(given), location) for given in inputs) and not _exists(location):
            yield RemovedInput(location, prefix, path, record.counts.documents)


def _covers(given: str, location: str) -> bool:
    """Whether a file would have been found at ``given``."""
    if is_url(given) != is_url(location):
        return False
    path = given if is_url(given) else os.path.abspath(given)
    if WILDCARDS.isdisjoint(path) or os.path.isdir(path):
        return location.startswith(f"{path.rstrip('/')}/")
    return _matches(location.split("/"), path.split("/"))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path, or a folder above it, matches a pattern."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    is_first = bool(parts) and fnmatchcase(parts[0], pattern[0])
    return is_first and _matches(parts[1:], pattern[1:])


def _exists(location: str) -> bool:
    if not is_url(location):
        return os.path.lexists(location)
    with readable(location):
        files, path = file_system(location)
        return files.exists(path)
