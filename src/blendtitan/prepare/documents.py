"""Texts to documents: their ids, each followed by EOD, in batches, as a shard stores them."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.prepare.jsonl import BadText
from blendtitan.storage.writer import stored_tokens, token_dtype
from blendtitan.tokenizers import ABSENT, Encoder, Tokenizer
from blendtitan.tokenizers.encoder import tokenizer_identity

# Enough for the libraries to be busy with, and little beside what they hold themselves.
_BATCH_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What ids depend on, besides the input: another value of one of them is another shard."""

    tokenizer: str
    """Hash of all that the tokenizer's ids depend on."""

    eod_id: int
    dtype: str

    bos_id: int = ABSENT
    """Token before each document, or ``ABSENT``."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, bos: bool = False) -> "Settings":
        """Settings that this tokenizer makes.

        Raises:
            ConfigError: It has no EOS.
        """
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
        """The settings, as manifests have them. BOS is left out where there is none."""
        found = asdict(self)
        if self.bos_id == ABSENT:
            # As releases wrote them that knew no BOS: what they began is finished.
            del found["bos_id"]
        return found


@dataclass(frozen=True, slots=True)
class Counts:
    """What was found in a range of an input, or in all of it."""

    documents: int = 0
    tokens: int = 0
    rejects: int = 0

    with_unknown: int = 0
    """Documents that contain the token for unknown text. Earlier releases did not count them."""

    without_text: int = 0
    """Documents of no tokens but EOD and BOS, as the tokenizer drops all of their text."""

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(one + another for one, another in pairs))


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Some neighbouring texts of an input, as a shard stores them."""

    tokens: NDArray[np.integer]
    """Ids of each text, followed by EOD and, if asked for, led by BOS. Shape ``(num_tokens,)``."""

    lens: NDArray[np.int32]
    """Tokens of each document, EOD included. Shape ``(num_documents,)``."""

    bad_texts: list[BadText]
    """What lay between the texts and could not be used."""

    with_unknown: int
    without_text: int

    @property
    def counts(self) -> Counts:
        """How many there are of each."""
        return Counts(
            *(len(self.lens), len(self.tokens), len(self.bad_texts)),
            *(self.with_unknown, self.without_text),
        )


def encoded_texts(
    texts: Iterable[str | BadText], encoder: Encoder, settings: Settings, *, where: str
) -> Iterator[DocumentBatch]:
    """Texts as documents, in batches of a size that suits tokenizers.

    Args:
        texts: Texts, and what stands in the place of those that cannot be used.
        encoder: Gives the ids.
        settings: Say which token follows each document, and how tokens are stored.
        where: Names the input in errors.

    Raises:
        FastTierError: The fast tokenizer tier failed; what it gave before can be wrong as well.
    """
    dtype = np.dtype(settings.dtype)
    for batch, bad_texts in _batches(texts):
        ids, id_lens = encoder.encode(batch)
        tokens, lens = np.insert(ids, np.cumsum(id_lens), settings.eod_id), id_lens + 1
        if settings.bos_id != ABSENT:
            tokens, lens = np.insert(tokens, np.cumsum(lens) - lens, settings.bos_id), lens + 1
        stored = stored_tokens(tokens, dtype, where=f"{where}: a document")
        with_unknown = _documents_with(encoder.unk_id, ids, id_lens)
        without_text = int(np.count_nonzero(id_lens == 0))
        yield DocumentBatch(stored, lens, bad_texts, with_unknown, without_text)


def _documents_with(token: int, ids: NDArray[np.int32], lens: NDArray[np.int32]) -> int:
    """How many documents contain a token."""
    places = np.flatnonzero(ids == token)
    return len(np.unique(np.searchsorted(np.cumsum(lens), places, side="right")))


def reject_lines(location: str, bad_texts: Iterable[BadText]) -> bytes:
    """Texts that were left out, as JSON lines."""
    lines = (
        {"input": location, text.unit: text.place, "reason": text.reason} for text in bad_texts
    )
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


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
