"""The part of a shard that one job makes.

START-STOP.tokens    tokens of the documents, as in a .bin
START-STOP.lens      tokens of each document, int32
START-STOP.rejects   JSON lines: rejected texts
START-STOP.json      manifest: what the part was made from, and its counts; written last
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from xxhash import xxh3_128

from blendtitan.errors import InputError
from blendtitan.files import DamagedFileError, open_file
from blendtitan.json_files import checked, read_json
from blendtitan.prepare.documents import Counts, Settings, encoded_texts, grouped, reject_lines
from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES
from blendtitan.prepare.plan import Job
from blendtitan.prepare.streams import BadText, TextRange
from blendtitan.prepare.texts import read_range
from blendtitan.storage.atomic_files import replaced_file, writing
from blendtitan.tokenizers import FAST_PROVEN, Encoder, Tier

_SUFFIXES = ("tokens", "lens", "rejects")

_SHOWN_REASONS = 20

_FORMAT = 2
"""Format of manifests. Unfinished parts of another format are made again."""


class Signals:
    """Progress that a worker reports, and the request to stop. This one ignores both."""

    def is_stopped(self) -> bool:
        """Whether the command was interrupted."""
        return False

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes read. May raise to end the job."""

    def add_documents(self, num_documents: int, num_tokens: int) -> None:
        """Count documents and tokens written."""


class TooManyRejectsError(InputError):
    """More texts were rejected than allowed. Empty if another process reports it."""


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """How many more texts may be rejected."""

    left: int
    stop_path: Path
    """File that exists once a process of the command has exceeded the limit."""

    def check(self, num_rejects: int, location: str, bad_texts: Sequence[BadText]) -> None:
        """Raise a ``TooManyRejectsError`` if this job or another process exceeds the limit."""
        if num_rejects > self.left:
            described = (
                (text.reason, f"{location}, {text.unit} {text.place}: {text.reason}")
                for text in bad_texts
            )
            lines = grouped(described, most=_SHOWN_REASONS)
            more = len({text.reason for text in bad_texts}) - len(lines)
            others = [f"{location}: {more:,} other reasons"] if more else []
            raise TooManyRejectsError(*lines, *others)
        if self.stop_path.exists():
            raise TooManyRejectsError


def write_part(
    job: Job, encoder: Encoder, settings: Settings, signals: Signals, limit: RejectLimit
) -> Counts:
    """Do one job: each text becomes a document, followed by EOD. Repeated, it gives the same.

    Nothing is flushed to disk: after a power cut, the digests show whether the part is complete.

    Raises:
        TooManyRejectsError: More texts would be rejected than allowed.
        FastTierError: The fast tokenizer tier failed, so its earlier ids may be wrong as well.
        InputError: The file cannot be read to its end, or has changed since the plan was made.
        OutputError: The disk is full, or the part cannot be written.
    """
    file = job.shard.input
    with ExitStack() as files:
        tokens, lens, rejects = (
            _HashedFile(path, files.enter_context(replaced_file(path, durable=False)))
            for path in map(job.path, _SUFFIXES)
        )
        counts = Counts()
        texts = read_texts(job, signals.add_bytes)
        for batch in encoded_texts(texts, encoder, settings, where=file.location):
            tokens.write(batch.tokens.data)
            lens.write(batch.lens.astype("<i4", copy=False).data)
            rejects.write(reject_lines(file.location, batch.bad_texts))
            counts += batch.counts
            limit.check(counts.rejects, file.location, batch.bad_texts)
            signals.add_documents(len(batch.lens), len(batch.tokens))
        file.check_unchanged()
    digests = {"tokens": tokens.digest, "lens": lens.digest, "rejects": rejects.digest}
    manifest = _identity(job, settings) | {"tier": encoder.recorded_tier} | asdict(counts)
    with replaced_file(job.path("json"), durable=False) as manifest_file:
        manifest_file.write(orjson.dumps(manifest | {"digests": digests}))
    return counts


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a job's part was made from, and its counts."""

    identity: dict[str, Any]
    counts: Counts
    tier: str
    digests: dict[str, str]

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Manifest":
        """The manifest in a JSON object."""
        rest = dict(found)
        counts = {
            field.name: rest.pop(field.name) for field in fields(Counts) if field.name in rest
        }
        made = {name: rest.pop(name) for name in ("tier", "digests") if name in rest}
        return checked(cls, {"identity": rest, "counts": counts, **made})


def read_part(job: Job, settings: Settings, tier: Tier) -> Counts | None:
    """The counts of a finished job. None: it is not finished, or was a different job."""
    manifest = _read_manifest(job)
    if manifest is None or not is_accepted(manifest.tier, tier):
        return None
    return manifest.counts if manifest.identity == _identity(job, settings) else None


def finished_counts(jobs: Iterable[Job], settings: Settings, tier: Tier) -> Counts | None:
    """The counts of several jobs together. None: not all of them are finished."""
    total = Counts()
    for job in jobs:
        counts = read_part(job, settings, tier)
        if counts is None:
            return None
        total += counts
    return total


def is_accepted(found: str, tier: Tier) -> bool:
    """Whether a run of one tier keeps what another tier made.

    Ids of the reference are always right; ids of the fast tier are if they were proven before.
    """
    return found == "reference" or (found == FAST_PROVEN and tier != "reference")


def remove_damaged_part(job: Job) -> None:
    """Delete the manifest of a part that a power cut or a full disk left incomplete."""
    path = job.path("json")
    manifest = _read_manifest(job)
    found = None
    with suppress(FileNotFoundError, IsADirectoryError):
        if manifest is not None:
            found = {suffix: file_digest(job.path(suffix)) for suffix in _SUFFIXES}
    if manifest is None or manifest.digests != found:
        with writing(path):
            path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Digest of a file, as manifests and catalogs store it."""
    with open_file(path) as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def read_texts(job: Job, add_bytes: Callable[[int], None]) -> Iterator[str | BadText]:
    """Texts of a job's range, in order; an unusable text is replaced by a ``BadText``."""
    shard = job.shard
    source = TextRange(shard.input, job.start, job.stop, shard.key, shard.options, add_bytes)
    yield from read_range(source)
    if shard.input.format.kind == "parquet":
        # Parquet readers do not report their position.
        add_bytes(job.num_bytes)


class _HashedFile:
    """A file whose digest is computed while it is written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._digest = xxh3_128()

    def write(self, data: bytes | memoryview) -> None:
        with writing(self._path):
            self._file.write(data)
        self._digest.update(data)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def _read_manifest(job: Job) -> Manifest | None:
    try:
        return Manifest.of(read_json(job.path("json"), dict[str, Any]))
    except (FileNotFoundError, DamagedFileError):
        return None


def _identity(job: Job, settings: Settings) -> dict[str, str | int]:
    shard = job.shard
    found = {"format": _FORMAT} | shard.source | {"key": shard.key}
    if shard.options.max_document_bytes != MAX_DOCUMENT_BYTES:
        found |= {"max_document_bytes": shard.options.max_document_bytes}
    return found | {"start": job.start, "stop": job.stop} | settings.described()
