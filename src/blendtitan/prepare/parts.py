"""A job's part of a shard: tokens, lengths, rejects, and the manifest that says it is complete.

START-STOP.tokens    tokens of the documents, as in a .bin
START-STOP.lens      tokens of each document, int32
START-STOP.rejects   JSON lines: texts that were left out
START-STOP.json      manifest: what the part was made of, and what it holds; written last
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import BinaryIO, Protocol

import numpy as np
import orjson

from blendtitan.errors import InputError
from blendtitan.prepare.jsonl import BadText, read_lines
from blendtitan.prepare.plan import PARQUET, InputFile, Job
from blendtitan.storage.writer import replaced_file, stored_tokens, token_dtype
from blendtitan.tokenizers import Encoder, Tier, Tokenizer
from blendtitan.tokenizers.encoder import tokenizer_identity

# Enough for the libraries to be busy with, and little beside what they hold themselves.
_BATCH_CHARS = 1 << 20

_SUFFIXES = ("tokens", "lens", "rejects")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ids depend on, besides the input: another value of one of them is another shard."""

    tokenizer: str
    """Hash of all that the tokenizer's ids depend on."""

    eod_id: int
    dtype: str

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Settings":
        """Settings that this tokenizer makes."""
        dtype = token_dtype(tokenizer.vocab_size)
        return cls(tokenizer_identity(tokenizer), tokenizer.eos_id, dtype.name)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was found in a range of an input, or in all of it."""

    documents: int = 0
    tokens: int = 0
    rejects: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.rejects + other.rejects,
        )


class Progress(Protocol):
    """Where a job tells how far it is. Each may raise, to end the job."""

    def add_bytes(self, num_bytes: int) -> None:
        """So many bytes more were read."""
        ...

    def add_documents(self, num_documents: int, num_tokens: int) -> None:
        """So many documents and tokens more were made."""
        ...


def write_part(job: Job, encoder: Encoder, settings: Settings, progress: Progress) -> Counts:
    """Do one job: each text becomes a document, followed by EOD. Done again, it gives the same.

    Nothing is flushed to disk: after a power cut, the checksum tells whether the part is whole.

    Raises:
        FastTierError: The fast tokenizer tier failed; what it gave before can be wrong as well.
        InputError: The file cannot be read to its end, or is no longer what was planned.
    """
    with ExitStack() as files:
        tokens, lens, rejects = (
            _Summed(files.enter_context(replaced_file(job.path(suffix), durable=False)))
            for suffix in _SUFFIXES
        )
        counts = Counts()
        for batch, bad_texts in _batches(read_texts(job, progress.add_bytes)):
            ids, id_lens = encoder.encode(batch)
            with_eod = np.insert(ids, np.cumsum(id_lens), settings.eod_id)
            where = f"{job.shard.input.path}: a document"
            stored = stored_tokens(with_eod, np.dtype(settings.dtype), where=where)
            tokens.write(stored.tobytes())
            lens.write((id_lens + 1).astype("<i4").tobytes())
            rejects.write(b"".join(_reject_line(job, text) for text in bad_texts))
            counts += Counts(len(batch), len(stored), len(bad_texts))
            progress.add_documents(len(batch), len(stored))
        _check_unchanged(job.shard.input)
    checksum = _checksum(tokens.digest, lens.digest, rejects.digest)
    manifest = _identity(job, settings, encoder.tier) | asdict(counts) | {"checksum": checksum}
    with replaced_file(job.path("json"), durable=False) as file:
        file.write(orjson.dumps(manifest))
    return counts


def read_part(job: Job, settings: Settings, tier: Tier) -> Counts | None:
    """What a finished job's part holds. None: the job is not finished, or was another one."""
    manifest = _manifest(job)
    if manifest is None:
        return None
    if any(manifest.get(k) != v for k, v in _identity(job, settings, tier).items()):
        return None
    return Counts(manifest["documents"], manifest["tokens"], manifest["rejects"])


def remove_damaged_part(job: Job) -> None:
    """Delete the manifest of a part that a power cut or a full disk left incomplete."""
    manifest = _manifest(job)
    if manifest is None:
        return
    try:
        digests = []
        for suffix in _SUFFIXES:
            with job.path(suffix).open("rb") as file:
                digests.append(hashlib.file_digest(file, _new_digest).digest())
    except FileNotFoundError:
        digests = []
    if manifest.get("checksum") != _checksum(*digests):
        job.path("json").unlink(missing_ok=True)


def read_texts(job: Job, add_bytes: Callable[[int], None]) -> Iterator[str | BadText]:
    """Texts of a job's range, in order, with a ``BadText`` in the place of each unusable one.

    Raises:
        InputError: The file cannot be read.
    """
    path, key = job.shard.input.path, job.shard.key
    if path.suffix != PARQUET:
        yield from read_lines(path, job.start, job.stop, key=key, advance=add_bytes)
        return
    # Imported where it is needed: it takes longer than all else together.
    from blendtitan.prepare.parquet import read_column

    yield from read_column(path, job.start, job.stop, key=key, advance=add_bytes)
    add_bytes(job.num_bytes)


class _Summed:
    """A file that is written and summed up at once."""

    # blake2b takes about a second for a gigabyte, in which no tokenizer makes a tenth of that.
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = _new_digest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _checksum(*digests: bytes) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _identity(job: Job, settings: Settings, tier: Tier) -> dict[str, str | int]:
    shard = job.shard
    found = shard.input.identity | {"key": shard.key, "start": job.start, "stop": job.stop}
    # A tier that turned out wrong must leave nothing that another one goes on from.
    return found | asdict(settings) | {"tier": tier}


def _manifest(job: Job) -> dict | None:
    try:
        manifest = orjson.loads(job.path("json").read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _check_unchanged(planned: InputFile) -> None:
    found = InputFile.of(planned.path)
    if found != planned:
        raise InputError(
            f"{planned.path}: changed while it was read (found {found.num_bytes:,} bytes, expected "
            f"{planned.num_bytes:,} and the same time of change). Run again when it is complete."
        )


def _reject_line(job: Job, text: BadText) -> bytes:
    line = {"input": str(job.shard.input.path), text.unit: text.place, "reason": text.reason}
    return orjson.dumps(line) + b"\n"


def _batches(texts: Iterable[str | BadText]) -> Iterator[tuple[list[str], list[BadText]]]:
    """Texts in batches of a size that suits tokenizers, and the bad ones among them."""
    batch: list[str] = []
    bad_texts: list[BadText] = []
    num_chars = 0
    for text in texts:
        if isinstance(text, BadText):
            bad_texts.append(text)
            # A file of nothing else must not fill the memory.
            num_chars += len(text.reason)
        else:
            batch.append(text)
            num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield batch, bad_texts
            batch, bad_texts, num_chars = [], [], 0
    if batch or bad_texts:
        yield batch, bad_texts
