"""The parts of a shard's jobs to the shard, and the record of what it was made of."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from blendtitan.errors import CorruptShardError
from blendtitan.files import (
    LIMIT_BYTES,
    DamagedFileError,
    checked,
    open_file,
    parse_json,
    read_file,
)
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.documents import Counts, Settings
from blendtitan.prepare.file_formats import MAX_DOCUMENT_BYTES
from blendtitan.prepare.input_file import WORK_FOLDER
from blendtitan.prepare.parts import Manifest, file_digest, is_accepted
from blendtitan.prepare.plan import PARTS_SUFFIX, Job, Shard
from blendtitan.storage.atomic_files import (
    remove_file_partials,
    replaced_file,
    write_atomically,
    writing,
)
from blendtitan.storage.index_format import CODE_OF_DTYPE, IndexHeader
from blendtitan.storage.record_files import TokenizerRecord, encode_record, record_ends, record_path
from blendtitan.storage.record_files import read_record as read_tokenizer_record
from blendtitan.storage.writer import ShardWriter, append_file, remove_partials, remove_shard
from blendtitan.tokenizers import Tier
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_FORMAT = 2
"""Of records: shards that another release made are made again."""

_RECORD_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """What a shard was made of, and by what. The manifests of its jobs follow in the file."""

    source: dict[str, str | int]
    """The input, as ``InputFile.identity`` has it."""

    key: str
    settings: Settings
    tier: str
    """``reference``, or how the fast tier was proven right."""

    counts: Counts

    idx_digest: str
    """Of the ``.idx``; empty where there are no documents, and so no files."""

    max_document_bytes: int = MAX_DOCUMENT_BYTES
    """Longest document that was allowed."""


def join_parts(
    jobs: Sequence[Job], counts: Counts, settings: Settings, tokenizer: TokenizerIdentity
) -> None:
    """Make a shard of its finished jobs. Done again, or by two at once, it gives the same.

    A shard without documents has no files, but a record in the work folder.

    Raises:
        FileNotFoundError: A part, or what was written so far, is gone: another process removed
            it, having done the same.
    """
    shard = jobs[0].shard
    manifests = [read_file(job.path("json")) for job in jobs]
    write_atomically(shard.placing_path, b"")
    write_rejects(jobs, counts)
    remove_partials(shard.prefix)
    remove_file_partials(shard.record_path)
    idx_digest = ""
    if not counts.documents:
        # Of what the input was before. Shards of others were refused, or may be replaced.
        remove_shard(shard.prefix)
    else:
        dtype = np.dtype(settings.dtype)
        with ShardWriter.create(shard.prefix, dtype=dtype, tokenizer=tokenizer) as writer:
            for job in jobs:
                with open_file(job.path("lens")) as file:
                    lens = np.fromfile(file, dtype="<i4")
                writer.add_file(job.path("tokens"), lens.astype(np.int32, copy=False))
        idx_digest = file_digest(Path(f"{shard.prefix}.idx"))
        record_ends(shard.prefix, settings.eod_id)
    tiers = {manifest.tier for manifest in map(_manifest, manifests)}
    record = Record(
        source=shard.source,
        key=shard.key,
        settings=settings,
        tier=next(iter(tiers - {"reference"}), "reference"),
        counts=counts,
        idx_digest=idx_digest,
        max_document_bytes=shard.options.max_document_bytes,
    )
    header = orjson.dumps({"format": _FORMAT} | asdict(record))
    # Written last: where it is, the shard is complete, and its parts are not needed any more.
    write_atomically(shard.record_path, b"\n".join([header, *manifests, b""]))
    remove_parts(shard)


def write_rejects(jobs: Sequence[Job], counts: Counts) -> None:
    """Write the list of the texts that were left out, beside the shard, if there are any."""
    path = jobs[0].shard.rejects_path
    remove_file_partials(path)
    if not counts.rejects:
        with writing(path):
            path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as file:
        for job in jobs:
            append_file(job.path("rejects"), file)


def load_record(record_path: Path) -> Record | None:
    """The record in a file. None: there is none, or another release wrote it.

    Raises:
        DamagedFileError: The file holds something else. Its shard can be made again.
    """
    try:
        with open_file(record_path) as file:
            header = parse_json(file.readline(LIMIT_BYTES), dict[str, Any])
        if header.pop("format", _FORMAT) != _FORMAT:
            return None
        record = checked(Record, header)
        if np.dtype(record.settings.dtype) not in CODE_OF_DTYPE:
            raise DamagedFileError(f"holds dtype {record.settings.dtype}")
        return record
    except FileNotFoundError:
        return None
    # NumPy's error for a type that it does not know is a TypeError.
    except (DamagedFileError, IsADirectoryError, NotADirectoryError, TypeError) as error:
        raise DamagedFileError(
            f"{record_path}: the record of a shard is damaged: {error}"
        ) from error


def load_manifests(record_path: Path) -> list[Manifest]:
    """The manifests of a shard's jobs, which follow in the file of its record.

    Raises:
        DamagedFileError: The file holds something else.
        FileNotFoundError: It is gone.
    """
    try:
        with open_file(record_path) as file:
            file.readline(LIMIT_BYTES)
            return [_manifest(line) for line in iter(lambda: file.readline(LIMIT_BYTES), b"")]
    except DamagedFileError as error:
        raise DamagedFileError(
            f"{record_path}: the record of a shard is damaged: {error}"
        ) from error


def read_record(prefix: Path, record_path: Path) -> Record | None:
    """The record of a finished shard. None: there is none, or the shard is not there."""
    try:
        record = load_record(record_path)
    except DamagedFileError:
        return None
    return record if record is not None and has_shard(prefix, record) else None


def finished_record(shard: Shard, settings: Settings, tier: Tier) -> Record | None:
    """The record of a shard that is there, made of this input as asked for. None: it is not."""
    record = read_record(shard.prefix, shard.record_path)
    if record is None or record.source != shard.source:
        return None
    if (record.key, record.settings) != (shard.key, settings):
        return None
    if record.counts.rejects and record.max_document_bytes != shard.options.max_document_bytes:
        # Some of the texts left out may be allowed now.
        return None
    return record if is_accepted(record.tier, tier) else None


def add_tokenizer_record(prefix: Path, counts: Counts, tokenizer: TokenizerIdentity) -> None:
    """Record the tokenizer of a finished shard of an earlier release, which recorded none."""
    if not counts.documents:
        return
    record = TokenizerRecord(tokenizer, counts.documents, counts.tokens)
    with suppress(CorruptShardError):
        if read_tokenizer_record(prefix) == record:
            return
    remove_file_partials(record_path(prefix))
    write_atomically(record_path(prefix), encode_record(record))


def unproven_problem(prefix: Path) -> str | None:
    """A sentence about a shard that the fast tier encoded before its ids were proven, or None."""
    for folder in prefix.absolute().parents:
        name = prefix.absolute().relative_to(folder)
        record = read_record(prefix, folder / WORK_FOLDER / f"{name}.jsonl")
        if record is not None and not is_accepted(record.tier, "auto"):
            return (
                f"{prefix}: the fast tokenizer tier encoded it before its ids were proven equal to "
                f"those of the reference. Texts with user-defined symbols or new characters can "
                f"have wrong ids, which the ids alone do not show: run `blendtitan tokenize` "
                f"again, which replaces the shard."
            )
    return None


def record_paths(output: Path) -> Iterator[tuple[Path, Path]]:
    """Prefix and record of each shard that was made below ``output``, sorted."""
    work = output / WORK_FOLDER
    # os.walk does without folders that another process removes meanwhile.
    for folder, below, files in os.walk(work):
        below[:] = sorted(name for name in below if not name.endswith(PARTS_SUFFIX))
        for name in sorted(files):
            if name.endswith(_RECORD_SUFFIX):
                path = Path(folder, name)
                yield output / str(path.relative_to(work)).removesuffix(_RECORD_SUFFIX), path


def remove_parts(shard: Shard) -> None:
    """Delete what the jobs of a finished shard left."""
    folder = shard.parts_folder
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
    # Another process may just be at the same, or write the same part once more.
    with suppress(OSError):
        folder.rmdir()


def _manifest(line: bytes) -> Manifest:
    manifest = Manifest.of(parse_json(line, dict[str, Any]))
    if "tokens" not in manifest.digests:
        raise DamagedFileError("holds no digest of tokens")
    return manifest


def has_shard(prefix: Path, record: Record) -> bool:
    """Whether a shard is there and of the size that its record says."""
    if not record.counts.documents:
        return True
    dtype, num_documents = np.dtype(record.settings.dtype), record.counts.documents
    expected = {
        ".bin": record.counts.tokens * dtype.itemsize,
        ".idx": IndexHeader(dtype, num_documents, num_documents).file_bytes,
    }
    try:
        return all(Path(f"{prefix}{s}").stat().st_size == n for s, n in expected.items())
    except (FileNotFoundError, NotADirectoryError):
        return False
