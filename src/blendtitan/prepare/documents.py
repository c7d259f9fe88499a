"""From texts to documents: the ids of each text followed by EOD, in batches."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.prepare.streams import BadText
from blendtitan.storage.writer import stored_tokens, token_dtype
from blendtitan.tokenizers import ABSENT, Encoder, Tokenizer, tokenizer_identity

# Enough to keep the libraries busy, and little compared with the memory that they use.
_BATCH_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What the ids of a shard depend on besides its input. Other settings make another shard."""

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
                f"{tokenizer.path}: BOS is asked for, but the tokenizer has none. Leave --bos out, "
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
    """Documents that contain the token for unknown text. Earlier releases did not count them."""

    without_text: int = 0
    """Documents of EOD and BOS only, because the tokenizer drops all of their text."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Consecutive texts of an input, as a shard stores them."""

    tokens: NDArray[np.integer]
    """Ids of each text, followed by EOD and preceded by BOS if asked for: ``(num_tokens,)``."""

    lens: NDArray[np.int32]
    """Tokens of each document, EOD included. Shape ``(num_documents,)``."""

    bad_texts: list[BadText]
    """Unusable texts among them."""

    counts: Counts


def encoded_texts(
    texts: Iterable[str | BadText], encoder: Encoder, settings: Settings, *, where: str
) -> Iterator[DocumentBatch]:
    """Texts as documents, in batches of a size that suits tokenizers; ``where`` is for errors."""
    dtype = np.dtype(settings.dtype)
    for batch, bad_texts in _batches(texts):
        ids, id_lens = encoder.encode(batch)
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
        yield DocumentBatch(stored, lens, bad_texts, counts)


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


def _batches(texts: Iterable[str | BadText]) -> Iterator[tuple[list[str], list[BadText]]]:
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
