"""A job's part of a shard: tokens, lengths, rejects, and the manifest that says it is complete.

START-STOP.tokens    tokens of the documents, as in a .bin
START-STOP.lens      tokens of each document, int32
START-STOP.rejects   JSON lines: texts that were left out
START-STOP.json      manifest: what the part was made of, and what it holds; written last
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson
from xxhash import xxh3_128

from blendtitan.errors import InputError
from blendtitan.files import DamagedFileError, checked, open_file, read_json
from blendtitan.prepare.documents import Counts, Settings, encoded_texts, reject_lines
from blendtitan.prepare.file_formats import MAX_DOCUMENT_BYTES
from blendtitan.prepare.jsonl import BadText
from blendtitan.prepare.plan import Job
from blendtitan.prepare.texts import read_range
from blendtitan.storage.atomic_files import replaced_file, writing
from blendtitan.tokenizers import FAST_PROVEN, Encoder, Tier

_SUFFIXES = ("tokens", "lens", "rejects")

_SHOWN_REASONS = 20

_FORMAT = 2
"""Of manifests: parts that another release left unfinished are made again."""


class Progress(Protocol):
    """Where a job tells how far it is. Each may raise, to end the job."""

    def add_bytes(self, num_bytes: int) -> None:
        """So many bytes more were read."""
        ...

    def add_documents(self, num_documents: int, num_tokens: int) -> None:
        """So many documents and tokens more were made."""
        ...


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """How many more texts may be left out."""

    left: int
    stop_path: Path
    """File that is there once a process of the command has left out too many."""

    def check(self, num_rejects: int, location: str, bad_texts: Sequence[BadText]) -> None:
        """Stop where the limit is exceeded, by this job or in another process.

        Raises:
            TooManyRejectsError: It is.
        """
        if num_rejects > self.left:
            raise TooManyRejectsError(*grouped_rejects(location, bad_texts))
        if self.stop_path.exists():
            raise TooManyRejectsError


class TooManyRejectsError(InputError):
    """More texts were left out than allowed. The message is empty where another process told."""


def grouped_rejects(location: str, bad_texts: Sequence[BadText]) -> list[str]:
    """A line for each reason, with the first place and how many more there are."""
    by_reason: dict[str, list[BadText]] = {}
    for text in bad_texts:
        by_reason.setdefault(text.reason, []).append(text)
    groups = list(by_reason.values())
    lines = [
        f"{location}, {group[0].unit} {group[0].place}: {group[0].reason}"
        + (f" (and {len(group) - 1:,} more like it)" if len(group) > 1 else "")
        for group in groups[:_SHOWN_REASONS]
    ]
    more = len(groups) - len(lines)
    return lines + ([f"{location}: {more:,} other reasons"] if more else [])


def write_part(
    job: Job, encoder: Encoder, settings: Settings, progress: Progress, limit: RejectLimit
) -> Counts:
    """Do one job: each text becomes a document, followed by EOD. Done again, it gives the same.

    Nothing is flushed to disk: after a power cut, the digests tell whether the part is whole.

    Raises:
        TooManyRejectsError: More texts would be left out than allowed.
        FastTierError: The fast tokenizer tier failed; what it gave before can be wrong as well.
        InputError: The file cannot be read to its end, or is no longer what was planned.
        OutputError: The disk is full, or does not let the part be written.
    """
    file = job.shard.input
    with ExitStack() as files:
        tokens, lens, rejects = (
            _Summed(path, files.enter_context(replaced_file(path, durable=False)))
            for path in map(job.path, _SUFFIXES)
        )
        counts = Counts()
        texts = read_texts(job, progress.add_bytes)
        for encoded in encoded_texts(texts, encoder, settings, where=file.location):
            tokens.write(encoded.tokens.data)
            lens.write(encoded.lens.astype("<i4", copy=False).data)
            rejects.write(reject_lines(file.location, encoded.bad_texts))
            counts += encoded.counts
            limit.check(counts.rejects, file.location, encoded.bad_texts)
            progress.add_documents(len(encoded.lens), len(encoded.tokens))
        file.check_unchanged()
    digests = {"tokens": tokens.digest, "lens": lens.digest, "rejects": rejects.digest}
    manifest = _identity(job, settings) | {"tier": encoder.recorded_tier} | asdict(counts)
    with replaced_file(job.path("json"), durable=False) as manifest_file:
        manifest_file.write(orjson.dumps(manifest | {"digests": digests}))
    return counts


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a job's part was made of, and what it holds."""

    identity: dict[str, Any]
    counts: Counts
    tier: str
    digests: dict[str, str]

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Manifest":
        """The manifest that a JSON object stands for.

        Raises:
            DamagedFileError: It stands for none.
        """
        rest = dict(found)
        counts = {
            field.name: rest.pop(field.name) for field in fields(Counts) if field.name in rest
        }
        made = {name: rest.pop(name) for name in ("tier", "digests") if name in rest}
        return checked(cls, {"identity": rest, "counts": counts, **made})


def read_part(job: Job, settings: Settings, tier: Tier) -> Counts | None:
    """What a finished job's part holds. None: the job is not finished, or was another one."""
    manifest = read_manifest(job)
    if manifest is None or not is_accepted(manifest.tier, tier):
        return None
    return manifest.counts if manifest.identity == _identity(job, settings) else None


def is_accepted(found: str, tier: Tier) -> bool:
    """Whether a run that was asked for one tier keeps what another made.

    Ids of the reference are always right; those of the fast tier, if a proof was made before.
    """
    return found == "reference" or (found == FAST_PROVEN and tier != "reference")


def read_manifest(job: Job) -> Manifest | None:
    """The manifest of a job. None: its part is not complete, or the manifest is damaged."""
    try:
        return Manifest.of(read_json(job.path("json"), dict[str, Any]))
    except (FileNotFoundError, DamagedFileError):
        return None


def remove_damaged_part(job: Job) -> None:
    """Delete the manifest of a part that a power cut or a full disk left incomplete."""
    path = job.path("json")
    manifest = read_manifest(job)
    found = None
    with suppress(FileNotFoundError, IsADirectoryError):
        if manifest is not None:
            found = {suffix: file_digest(job.path(suffix)) for suffix in _SUFFIXES}
    if manifest is None or manifest.digests != found:
        with writing(path):
            path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Digest of a whole file, as manifests and catalogs have it."""
    with open_file(path) as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def read_texts(job: Job, add_bytes: Callable[[int], None]) -> Iterator[str | BadText]:
    """Texts of a job's range, in order, with a ``BadText`` in the place of each unusable one.

    Raises:
        InputError: The file cannot be read.
    """
    shard = job.shard
    yield from read_range(
        shard.input,
        job.start,
        job.stop,
        key=shard.key,
        options=shard.options,
        advance=add_bytes,
    )
    if shard.input.format.kind == "parquet":
        # Its readers do not say where they are.
        add_bytes(job.num_bytes)


class _Summed:
    """A file that is written and summed up at once."""

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


def _identity(job: Job, settings: Settings) -> dict[str, str | int]:
    shard = job.shard
    found = {"format": _FORMAT} | shard.source | {"key": shard.key}
    if shard.options.max_document_bytes != MAX_DOCUMENT_BYTES:
        found |= {"max_document_bytes": shard.options.max_document_bytes}
    return found | {"start": job.start, "stop": job.stop} | settings.described()
