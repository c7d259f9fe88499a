"""Finished shards: joining the parts of their jobs, their records, and ``shards.catalog``.

A record holds the inputs and settings of a shard. Once it exists, the shard is complete.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from blendtitan.errors import CorruptShardError
from blendtitan.files import DamagedFileError, open_file, path_of, read_file, url_of
from blendtitan.identity import TokenizerIdentity
from blendtitan.json_files import LIMIT_BYTES, checked, parse_json
from blendtitan.prepare.documents import Counts, Manifest, Settings, file_digest, is_accepted
from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES, WORK_FOLDER, work_folder
from blendtitan.prepare.plan import PARTS_SUFFIX, RECORD_SUFFIX, Job, Shard
from blendtitan.storage.atomic_files import (
    remove_file_partials,
    replaced_file,
    write_atomically,
    writing,
)
from blendtitan.storage.index_format import CODE_OF_DTYPE, IndexHeader
from blendtitan.storage.reader import file_signature
from blendtitan.storage.record_files import TokenizerRecord, record_path
from blendtitan.storage.record_files import read_record as read_tokenizer_record
from blendtitan.storage.record_writer import encode_record, record_ends, write_folder_catalog
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry, read_folder_catalog
from blendtitan.storage.writer import (
    SHARD_SUFFIXES,
    ShardWriter,
    append_file,
    docs_path,
    remove_partials,
    remove_shard,
)
from blendtitan.tokenizers import Tier
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_FORMAT = 2
"""Format of records. Shards with records of another format are rebuilt."""


@dataclass(frozen=True, slots=True)
class Record:
    """Inputs and settings of a shard. The manifests of its jobs follow in the file."""

    source: dict[str, str | int]
    key: str
    settings: Settings
    tier: str
    """``reference``, or the proof of the fast tier."""

    counts: Counts

    idx_digest: str
    """Digest of the ``.idx``. Empty if there are no documents, and so no files."""

    max_document_bytes: int = MAX_DOCUMENT_BYTES

    docs: tuple[str, ...] | None = None
    """Kept fields of its documents. None: the sources of its documents were not recorded."""

    def has_shard(self, prefix: Path) -> bool:
        """Whether the shard exists and has the size that the record implies.

        The records of an output in object storage are compared with it when a command begins.
        """
        if not self.counts.documents or url_of(prefix):
            return True
        try:
            return all(Path(f"{prefix}{s}").stat().st_size == n for s, n in self.sizes().items())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def sizes(self) -> dict[str, int]:
        """The sizes of the files of a shard with documents, by suffix."""
        dtype, num_documents = np.dtype(self.settings.dtype), self.counts.documents
        return {
            ".bin": self.counts.tokens * dtype.itemsize,
            ".idx": IndexHeader(dtype, num_documents, num_documents).file_bytes,
        }

    def keeps(self, names: Iterable[str], prefix: Path) -> bool:
        """Whether these fields of its documents are recorded beside the shard."""
        is_there = not self.counts.documents or url_of(prefix) or docs_path(prefix).is_file()
        return self.docs is not None and bool(is_there) and set(names) <= set(self.docs)


def join_parts(
    jobs: Sequence[Job], counts: Counts, settings: Settings, tokenizer: TokenizerIdentity
) -> None:
    """Make a shard from its finished jobs. Repeating it, or doing it twice at once, is safe.

    A shard without documents has no files, but a record in the work folder.
    """
    shard = jobs[0].shard
    prefix = shard.local_prefix
    manifests = [read_file(job.path("json")) for job in jobs]
    write_atomically(shard.placing_path, b"")
    write_rejects(jobs, counts)
    remove_partials(prefix)
    remove_file_partials(shard.record_path)
    idx_digest = ""
    if not counts.documents:
        # Remove the shard of an earlier version of the input.
        remove_output(shard.prefix)
    else:
        dtype = np.dtype(settings.dtype)
        with ShardWriter.create(prefix, dtype=dtype, tokenizer=tokenizer) as writer:
            for job in jobs:
                with open_file(job.path("lens")) as file:
                    lens = np.fromfile(file, dtype="<i4")
                writer.add_file(job.path("tokens"), lens.astype(np.int32, copy=False))
            if shard.options.has_docs:
                from blendtitan.prepare.part_sources import join_sources

                join_sources(jobs, writer.open_docs())
        idx_digest = file_digest(Path(f"{prefix}.idx"))
        record_ends(prefix, settings.eod_id)
    tiers = {manifest.tier for manifest in map(_manifest, manifests)}
    record = Record(
        source=shard.source,
        key=shard.key,
        settings=settings,
        tier=next(iter(tiers - {"reference"}), "reference"),
        counts=counts,
        idx_digest=idx_digest,
        max_document_bytes=shard.options.max_document_bytes,
        docs=shard.options.keep if shard.options.has_docs else None,
    )
    header = orjson.dumps({"format": _FORMAT} | asdict(record))
    content = b"\n".join([header, *manifests, b""])
    if shard.stored_record:
        from blendtitan.prepare.uploads import upload_shard

        upload_shard(shard, content)
    # Written last: once it exists, the shard is complete, and its parts are no longer needed.
    write_atomically(shard.record_path, content)
    remove_parts(shard)


def write_rejects(jobs: Sequence[Job], counts: Counts) -> None:
    """Write the list of rejected texts beside the shard, if there are any."""
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


def load_record(path: Path) -> Record | None:
    """The record in a file. None: no file, or a file of another release.

    Raises:
        DamagedFileError: The file is damaged. Its shard can be made again.
    """
    try:
        with open_file(path) as file:
            return parse_record(file.readline(LIMIT_BYTES))
    except FileNotFoundError:
        return None
    except (DamagedFileError, IsADirectoryError, NotADirectoryError) as error:
        raise DamagedFileError(f"{path}: the record of a shard is damaged: {error}") from error


def parse_record(line: bytes) -> Record | None:
    """The record in the first line of a file. None: it is of another release.

    Raises:
        DamagedFileError: The line is damaged.
    """
    header = parse_json(line, dict[str, Any])
    if header.pop("format", _FORMAT) != _FORMAT:
        return None
    try:
        record = checked(Record, header)
        if np.dtype(record.settings.dtype) not in CODE_OF_DTYPE:
            raise DamagedFileError(f"holds dtype {record.settings.dtype}")
    except TypeError as error:  # NumPy does not know the type
        raise DamagedFileError(str(error)) from error
    return record


def load_manifests(path: Path) -> list[Manifest]:
    """The manifests of a shard's jobs, which follow in the file of its record."""
    try:
        with open_file(path) as file:
            file.readline(LIMIT_BYTES)
            return [_manifest(line) for line in iter(lambda: file.readline(LIMIT_BYTES), b"")]
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: the record of a shard is damaged: {error}") from error


def read_record(prefix: Path, path: Path) -> Record | None:
    """The record of a finished shard. None: the record or the shard is missing."""
    try:
        record = load_record(path)
    except DamagedFileError:
        return None
    return record if record is not None and record.has_shard(prefix) else None


def finished_record(shard: Shard, settings: Settings, tier: Tier) -> Record | None:
    """The record of a finished shard with this input and these settings, or None."""
    record = read_record(shard.prefix, shard.record_path)
    if record is None or record.source != shard.source:
        return None
    if (record.key, record.settings) != (shard.key, settings):
        return None
    if record.counts.rejects and record.max_document_bytes != shard.options.max_document_bytes:
        # Some of the rejected texts may be allowed now.
        return None
    if shard.options.keep and not record.keeps(shard.options.keep, shard.prefix):
        return None
    return record if is_accepted(record.tier, tier) else None


def add_tokenizer_record(prefix: Path, counts: Counts, tokenizer: TokenizerIdentity) -> None:
    """Restore the tokenizer record of a finished local shard if it is missing or wrong."""
    if not counts.documents or url_of(prefix):
        return
    record = TokenizerRecord(tokenizer, counts.documents, counts.tokens)
    with suppress(CorruptShardError):
        if read_tokenizer_record(prefix) == record:
            return
    remove_file_partials(record_path(prefix))
    write_atomically(record_path(prefix), encode_record(record))


def unproven_problem(prefix: Path) -> str | None:
    """A sentence about a shard that the fast tier encoded before its ids were proven, or None."""
    for folder in () if url_of(prefix) else prefix.absolute().parents:
        name = prefix.absolute().relative_to(folder)
        record = read_record(prefix, folder / WORK_FOLDER / f"{name}{RECORD_SUFFIX}")
        if record is not None and not is_accepted(record.tier, "auto"):
            return (
                f"{prefix}: the fast tokenizer tier encoded it before its ids were proven equal to "
                f"those of the reference. Texts with user-defined symbols or new characters may "
                f"have wrong ids, which the ids alone do not show: run `blendtitan tokenize` "
                f"again, which replaces the shard."
            )
    return None


def record_paths(output: Path) -> Iterator[tuple[Path, Path]]:
    """Prefix and record of each shard that was made below ``output``, sorted."""
    work = work_folder(output)
    # os.walk tolerates folders that another process removes meanwhile.
    for folder, below, files in os.walk(work):
        below[:] = sorted(name for name in below if not name.endswith(PARTS_SUFFIX))
        for name in sorted(files):
            if name.endswith(RECORD_SUFFIX):
                path = Path(folder, name)
                yield output / str(path.relative_to(work)).removesuffix(RECORD_SUFFIX), path


def remove_parts(shard: Shard) -> None:
    """Delete the files of the jobs of a finished shard."""
    folder = shard.parts_folder
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
    # Another process may be doing the same, or writing the same part once more.
    with suppress(OSError):
        folder.rmdir()


def _manifest(line: bytes) -> Manifest:
    manifest = Manifest.of(parse_json(line, dict[str, Any]))
    if "tokens" not in manifest.digests:
        raise DamagedFileError("holds no digest of tokens")
    return manifest


def write_catalog(output: Path) -> None:
    """List the shards below ``output`` in its catalog, with their digests.

    The entries of shards with records come from the records. The entry of any other shard,
    copied into the folder with its catalog, is kept while the shard exists. Several
    commands may finish at once: each looks again after writing, so that the last to write
    has seen all records.
    """
    path = output / CATALOG_FILE
    if not url_of(output):
        remove_file_partials(path)
    found = None
    while found != (found := _record_times(output)):
        entries = _other_entries(output) | dict(_own_entries(output))
        if entries:
            write_folder_catalog(output, entries)
        else:
            remove_file(path)


def withdraw_entries(output: Path, prefixes: Collection[Path]) -> None:
    """Remove shards that will change, and all shards with records, from the catalog.

    ``write_catalog`` adds them again. Until then, their entries could be wrong.
    """
    kept = _other_entries(output, but=prefixes)
    if kept:
        write_folder_catalog(output, kept)
        return
    path = output / CATALOG_FILE
    with writing(path):
        remove_file(path)


def remove_file(path: Path) -> None:
    """Delete a file of an output, if it exists."""
    if url := url_of(path):
        from blendtitan.storage.remote_writes import delete

        delete(url)
    else:
        path.unlink(missing_ok=True)


def remove_output(prefix: Path) -> None:
    """Delete a shard of an output, if it exists: first the ``.idx``."""
    if not url_of(prefix):
        remove_shard(prefix)
        return
    for suffix in SHARD_SUFFIXES:
        remove_file(path_of(f"{prefix}{suffix}"))


def _record_times(output: Path) -> dict[Path, int]:
    times: dict[Path, int] = {}
    for _, path in record_paths(output):
        with suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime_ns
    return times


def _own_entries(output: Path) -> Iterator[tuple[str, CatalogEntry]]:
    for prefix, path in record_paths(output):
        record = read_record(prefix, path)
        if record is None or not record.counts.documents:
            continue
        try:
            manifests = load_manifests(path)
        except FileNotFoundError:
            continue
        except DamagedFileError as error:
            logger.warning(
                "%s. Its shard is not listed in %s: delete the record, and tokenise its input "
                "again with --overwrite.",
                *(error, CATALOG_FILE),
            )
            continue
        token_bytes = np.dtype(record.settings.dtype).itemsize
        parts = ((part.counts.tokens * token_bytes, part.digests["tokens"]) for part in manifests)
        yield (
            str(prefix.relative_to(output)),
            CatalogEntry(
                documents=record.counts.documents,
                tokens=record.counts.tokens,
                dtype=record.settings.dtype,
                idx_digest=record.idx_digest,
                bin_digests=tuple(part for part in parts if part[0]),
            ),
        )


def _other_entries(output: Path, but: Collection[Path] = ()) -> dict[str, CatalogEntry]:
    """Catalog entries of existing shards that have no record of this command."""
    try:
        listed = read_folder_catalog(output) or {}
    except CorruptShardError as error:
        logger.warning("%s Its entries for shards that tokenize did not write are lost.", error)
        return {}
    excluded = {*but, *(prefix for prefix, _ in record_paths(output))}
    return {
        name: entry
        for name, entry in listed.items()
        if (prefix := output / name) not in excluded
        if file_signature(str(prefix)) is not None
    }
