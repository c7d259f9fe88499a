"""Encode texts as documents, the ids of each text followed by EOD, and write parts of shards.

One job makes one part:

START-STOP.tokens    tokens of the documents, as in a .bin
START-STOP.lens      tokens of each document, int32
START-STOP.rejects   JSON lines: rejected texts
START-STOP.docs      Arrow: place and kept fields of each document, unless --no-docs is given
START-STOP.json      manifest: inputs, settings and counts of the part; written last
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray
from xxhash import xxh3_128

from blendtitan.errors import ConfigError, InputError
from blendtitan.files import DamagedFileError, open_file
from blendtitan.json_files import checked, read_json
from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES
from blendtitan.prepare.plan import Job
from blendtitan.prepare.streams import BadText, Kept, Text, TextRange
from blendtitan.prepare.texts import read_range
from blendtitan.storage.atomic_files import replaced_file, writing
from blendtitan.storage.writer import stored_tokens, token_dtype
from blendtitan.tokenizers import ABSENT, FAST_PROVEN, Encoder, Tier, Tokenizer, tokenizer_identity

if TYPE_CHECKING:
    from blendtitan.prepare.part_sources import PartSources

# Enough to keep the libraries busy, and little compared with the memory that they use.
_BATCH_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a shard's ids depend on. Other settings make another shard."""

    tokenizer: str
    """Hash of everything that the tokenizer's ids depend on."""

    eod_id: int
    dtype: str

    bos_id: int = ABSENT
    """Token before each document, or ``ABSENT``."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, bos: bool = False) -> "Settings":
        """The settings for a tokenizer."""
        if tokenizer.eos_id == ABSENT:
            raise ConfigError(
                f"{tokenizer.path}: the tokenizer has no EOS to put after each document. "
                f"{tokenizer.eos_advice}"
            )
        if bos and tokenizer.bos_id == ABSENT:
            raise ConfigError(
                f"{tokenizer.path}: --bos is given, but the tokenizer has no BOS. Leave --bos out, "
                f"or for a tokenizer.json name bos_token in a tokenizer_config.json beside it."
            )
        dtype = token_dtype(tokenizer.vocab_size)
        bos_id = tokenizer.bos_id if bos else ABSENT
        return cls(tokenizer_identity(tokenizer), tokenizer.eos_id, dtype.name, bos_id)

    def described(self) -> dict[str, str | int]:
        """The settings as manifests store them: without BOS, as releases before BOS did."""
        found = asdict(self)
        if self.bos_id == ABSENT:
            del found["bos_id"]
        return found


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts for a range of an input, or for all of it."""

    documents: int = 0
    tokens: int = 0
    rejects: int = 0

    with_unknown: int = 0
    """Documents that contain the unknown token. Earlier releases did not count them."""

    without_text: int = 0
    """Documents of EOD and BOS only, because the tokenizer drops all of their text."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Consecutive texts of an input, as a shard stores them."""

    tokens: NDArray[np.integer]
    """Ids of each text, followed by EOD and, with ``bos``, preceded by BOS: ``(num_tokens,)``."""

    lens: NDArray[np.int32]
    """Tokens of each document, EOD included. Shape ``(num_documents,)``."""

    places: Sequence[int]
    """Place of each text in the input."""

    kept: Sequence[Kept]
    """Kept fields of each text."""

    bad_texts: list[BadText]
    counts: Counts


def encoded_texts(
    texts: Iterable[Text | BadText], encoder: Encoder, settings: Settings, *, where: str
) -> Iterator[DocumentBatch]:
    """Texts as documents, in batches of a size that suits tokenizers; ``where`` is for errors."""
    dtype = np.dtype(settings.dtype)
    for batch, bad_texts in _batches(texts):
        places, strings, kept = zip(*batch, strict=True) if batch else ((), (), ())
        ids, id_lens = encoder.encode(list(strings))
        tokens, lens = np.insert(ids, np.cumsum(id_lens), settings.eod_id), id_lens + 1
        if settings.bos_id != ABSENT:
            tokens, lens = np.insert(tokens, np.cumsum(lens) - lens, settings.bos_id), lens + 1
        stored = stored_tokens(tokens, dtype, where=f"{where}: a document")
        unknown = np.searchsorted(
            np.cumsum(id_lens), np.flatnonzero(ids == encoder.unk_id), side="right"
        )
        counts = Counts(
            *(len(lens), len(tokens), len(bad_texts)),
            with_unknown=len(np.unique(unknown)),
            without_text=int(np.count_nonzero(id_lens == 0)),
        )
        yield DocumentBatch(stored, lens, places, kept, bad_texts, counts)


def reject_lines(location: str, bad_texts: Iterable[BadText]) -> bytes:
    """Rejected texts as JSON lines."""
    lines = (
        {"input": location, text.unit: text.place, "reason": text.reason} for text in bad_texts
    )
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def grouped(
    described: Iterable[tuple[str, str]], *, most: int, more: str = "more like it"
) -> list[str]:
    """The first description for each of up to ``most`` reasons, with the number of others."""
    first: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for reason, text in described:
        if reason in first or len(first) < most:
            first.setdefault(reason, text)
            seen[reason] += 1
    return [
        text + (f" (and {seen[reason] - 1:,} {more})" if seen[reason] > 1 else "")
        for reason, text in first.items()
    ]


def _batches(texts: Iterable[Text | BadText]) -> Iterator[tuple[list[Text], list[BadText]]]:
    batch: list[Text] = []
    bad_texts: list[BadText] = []
    num_chars = 0
    for text in texts:
        if isinstance(text, BadText):
            bad_texts.append(text)
            # A file of rejected texts alone must not fill the memory.
            num_chars += len(text.reason)
        else:
            batch.append(text)
            _, string, kept = text
            num_chars += len(string) + sum(map(len, filter(None, kept)))
        if num_chars >= _BATCH_CHARS:
            yield batch, bad_texts
            batch, bad_texts, num_chars = [], [], 0
    if batch or bad_texts:
        yield batch, bad_texts


_SHOWN_REASONS = 20

_FORMAT = 2
"""Format of manifests. Unfinished parts of another format are made again."""


class Signals:
    """Progress that a worker reports, and the request to stop. This one ignores both."""

    def is_stopped(self) -> bool:
        """Whether the command was interrupted."""
        return False

    def add(self, num_bytes: int = 0, num_documents: int = 0, num_tokens: int = 0) -> None:
        """Count bytes read, or documents and tokens written. May raise to end the job."""


class TooManyRejectsError(InputError):
    """More texts were rejected than allowed. Empty if another process reports it."""


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """The limit of rejected texts, and the file that stops all processes."""

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
    """Do one job: write each text as a document, followed by EOD. Repeating it is safe.

    Nothing is flushed to disk: after a power cut, the digests show whether the part is complete.

    Raises:
        TooManyRejectsError: More texts would be rejected than allowed.
        FastTierError: The fast tokenizer tier failed, so its earlier ids may be wrong as well.
        InputError: The file cannot be read to its end, or has changed since the plan was made.
    """
    file = job.shard.input
    with ExitStack() as files:
        parts = {
            suffix: _HashedFile(path, files.enter_context(replaced_file(path, durable=False)))
            for suffix in _suffixes(job)
            for path in (job.path(suffix),)
        }
        docs = None
        if "docs" in parts:
            docs = files.enter_context(closing(_part_sources(parts["docs"], job)))
        counts = Counts()
        texts = read_texts(job, signals.add)
        for batch in encoded_texts(texts, encoder, settings, where=file.location):
            parts["tokens"].write(batch.tokens.data)
            parts["lens"].write(batch.lens.astype("<i4", copy=False).data)
            if docs is not None:
                docs.write(batch.places, batch.kept)
            parts["rejects"].write(reject_lines(file.location, batch.bad_texts))
            counts += batch.counts
            limit.check(counts.rejects, file.location, batch.bad_texts)
            signals.add(0, len(batch.lens), len(batch.tokens))
        file.check_unchanged()
    digests = {suffix: part.digest for suffix, part in parts.items()}
    manifest = _identity(job, settings) | {"tier": encoder.recorded_tier} | asdict(counts)
    with replaced_file(job.path("json"), durable=False) as manifest_file:
        manifest_file.write(orjson.dumps(manifest | {"digests": digests}))
    return counts


@dataclass(frozen=True, slots=True)
class Manifest:
    """The inputs, settings and counts of a job's part."""

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
    counts = [read_part(job, settings, tier) for job in jobs]
    return None if None in counts else sum(filter(None, counts), Counts())


def is_accepted(found: str, tier: Tier) -> bool:
    """Whether a run of one tier keeps the output of another.

    Ids of the reference tier are always right; ids of the fast tier, if they are proven.
    """
    return found == "reference" or (found == FAST_PROVEN and tier != "reference")


def remove_damaged_part(job: Job) -> None:
    """Delete the manifest of a part that a power cut or a full disk left incomplete."""
    path = job.path("json")
    manifest = _read_manifest(job)
    found = None
    with suppress(FileNotFoundError, IsADirectoryError):
        if manifest is not None:
            found = {suffix: file_digest(job.path(suffix)) for suffix in _suffixes(job)}
    if manifest is None or manifest.digests != found:
        with writing(path):
            path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Digest of a file, as manifests and catalogs store it."""
    with open_file(path) as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def read_texts(job: Job, add_bytes: Callable[[int], None]) -> Iterator[Text | BadText]:
    """Texts of a job's range, in order; an unusable text is replaced by a ``BadText``."""
    shard = job.shard
    source = TextRange(shard.input, job.start, job.stop, shard.key, shard.options, add_bytes)
    yield from read_range(source)
    if shard.input.format.kind == "parquet":
        # Parquet readers do not report their position.
        add_bytes(job.num_bytes)


def _suffixes(job: Job) -> tuple[str, ...]:
    return ("tokens", "lens", "rejects", *(["docs"] if job.shard.options.has_docs else []))


def _part_sources(file: "_HashedFile", job: Job) -> "PartSources":
    # Imported on demand: pyarrow takes a tenth of a second.
    from blendtitan.prepare.part_sources import PartSources

    return PartSources(file, job.shard.options.keep)


class _HashedFile:
    """A file whose digest is computed while it is written."""

    closed = False
    """For Arrow."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._digest = xxh3_128()

    def write(self, data: bytes | memoryview) -> int:
        with writing(self._path):
            self._file.write(data)
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing: the file is closed by its opener."""

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def _read_manifest(job: Job) -> Manifest | None:
    try:
        return Manifest.of(read_json(job.path("json"), dict[str, Any]))
    except (FileNotFoundError, DamagedFileError):
        return None


def _identity(job: Job, settings: Settings) -> dict[str, Any]:
    shard = job.shard
    found: dict[str, Any] = {"format": _FORMAT} | shard.source | {"key": shard.key}
    if shard.options.max_document_bytes != MAX_DOCUMENT_BYTES:
        found |= {"max_document_bytes": shard.options.max_document_bytes}
    if shard.options.has_docs:
        found |= {"docs": list(shard.options.keep)}
    return found | {"start": job.start, "stop": job.stop} | settings.described()
