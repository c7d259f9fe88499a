"""The parts of a shard's jobs to the shard, and the record of what it was made of."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson

from blendtitan.prepare.parts import Counts, Settings
from blendtitan.prepare.plan import Job, Shard
from blendtitan.storage.index_format import IndexHeader
from blendtitan.storage.writer import (
    ShardWriter,
    append_file,
    remove_file_partials,
    remove_partials,
    replaced_file,
    write_atomically,
)


@dataclass(frozen=True, slots=True)
class Record:
    """The first line of a shard's record; the manifests of its jobs follow."""

    input: str
    num_bytes: int
    mtime_ns: int
    key: str
    settings: Settings
    counts: Counts

    @property
    def source(self) -> dict[str, str | int]:
        """The input that the shard was made of, as ``InputFile.identity`` has it."""
        return {"input": self.input, "num_bytes": self.num_bytes, "mtime_ns": self.mtime_ns}


def join_parts(jobs: Sequence[Job], counts: Counts, settings: Settings) -> None:
    """Make a shard of its finished jobs. Done again, or by two at once, it gives the same.

    A shard without documents has no files, but a record.
    """
    shard = jobs[0].shard
    write_rejects(jobs, counts)
    remove_partials(shard.prefix)
    remove_file_partials(shard.record_path)
    if counts.documents:
        with ShardWriter.create(shard.prefix, dtype=np.dtype(settings.dtype)) as writer:
            for job in jobs:
                lens = np.fromfile(job.path("lens"), dtype="<i4")
                writer.add_file(job.path("tokens"), lens.astype(np.int32, copy=False))
    header = shard.input.identity | {"key": shard.key}
    header |= {"settings": asdict(settings), "counts": asdict(counts)}
    manifests = [job.path("json").read_bytes() for job in jobs]
    # Written last: where it is, the shard is complete, and its parts are not needed any more.
    write_atomically(shard.record_path, b"\n".join([orjson.dumps(header), *manifests, b""]))
    remove_parts(shard)


def write_rejects(jobs: Sequence[Job], counts: Counts) -> None:
    """Write the list of the texts that were left out, beside the shard, if there are any."""
    path = jobs[0].shard.rejects_path
    remove_file_partials(path)
    if not counts.rejects:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as file:
        for job in jobs:
            append_file(job.path("rejects"), file)


def read_record(shard: Shard) -> Record | None:
    """The record of a finished shard. None: there is none, or the shard is not there."""
    try:
        with shard.record_path.open("rb") as file:
            header = orjson.loads(file.readline())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    settings, counts = Settings(**header.pop("settings")), Counts(**header.pop("counts"))
    record = Record(settings=settings, counts=counts, **header)
    return record if _has_shard(shard.prefix, record) else None


def is_finished(shard: Shard, settings: Settings) -> bool:
    """Whether a shard is there and was made of this input with these settings."""
    record = read_record(shard)
    return (
        record is not None
        and record.source == shard.input.identity
        and (record.key, record.settings) == (shard.key, settings)
    )


def remove_parts(shard: Shard) -> None:
    """Delete what the jobs of a finished shard left."""
    folder = shard.parts_folder
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
    # Another process may just be at the same, or write the same part once more.
    with suppress(OSError):
        folder.rmdir()


def _has_shard(prefix: Path, record: Record) -> bool:
    if not record.counts.documents:
        return True
    dtype, num_documents = np.dtype(record.settings.dtype), record.counts.documents
    expected = {
        ".bin": record.counts.tokens * dtype.itemsize,
        ".idx": IndexHeader(dtype, num_documents, num_documents).file_bytes,
    }
    try:
        return all(Path(f"{prefix}{s}").stat().st_size == n for s, n in expected.items())
    except FileNotFoundError:
        return False
