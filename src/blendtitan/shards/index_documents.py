"""Documents in the token files of other programs, found in one pass."""

import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError, CorruptShardError, VocabularyError
from blendtitan.shards.index_sources import DTYPES, TokenFile
from blendtitan.shards.tokens import summarize_tokens
from blendtitan.storage.reader import OpenFile
from blendtitan.storage.records import DocumentEnds
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted

# Small enough that the second look at a block finds it in the processor's cache.
_BLOCK_BYTES = 1 << 20
_SAMPLED_TOKENS = 1 << 24
_LONGEST = np.iinfo(np.int32).max

# No vocabulary is as large; two ids of 16 bits, read as one of 32, are larger.
_MOST_IDS = 1 << 24
# The upper halves of ids of 32 bits: below this for a vocabulary of a million.
_MOST_UPPER = 15
_TYPE_TOKENS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """The user's description of the tokens."""

    eod_id: int | None = None
    """Token that ends documents. None: the tokenizer's EOS, unless ``bos_id`` is given."""

    bos_id: int | None = None
    """Token that begins documents, if none ends them."""

    dtype: str | None = None
    """Token type of files that do not name it; one of ``DTYPES``."""

    vocab_size: int | None = None
    """Size of the vocabulary. None: the tokenizer's."""

    tokenizer: Tokenizer | None = None
    """Tokenizer that made the tokens, to be checked and recorded."""

    def __post_init__(self) -> None:
        least = {"eod_id": 0, "bos_id": 0, "vocab_size": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None:
                check_at_least(name, value, smallest)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}")

    @property
    def separator(self) -> int | None:
        """The token that ends or begins documents. None: it is not known."""
        if self.bos_id is not None or self.eod_id is not None:
            return self.eod_id if self.bos_id is None else self.bos_id
        eos_id = ABSENT if self.tokenizer is None else self.tokenizer.eos_id
        return None if eos_id == ABSENT else eos_id

    @property
    def most_ids(self) -> int | None:
        """The size of the vocabulary, if it is known."""
        if self.vocab_size is None and self.tokenizer is not None:
            return self.tokenizer.vocab_size
        return self.vocab_size


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of one token file."""

    lens: NDArray[np.int32]
    ends: DocumentEnds | None
    """How they end and begin. None: no separator is known."""


def find_documents(source: TokenFile, settings: IndexSettings) -> Documents:
    """Read all tokens of a file, check their ids, and find the documents.

    Memory holds a block of tokens, and four bytes for each document.

    Raises:
        CorruptShardError: No document ends, or the file does not hold tokens of its type.
        VocabularyError: An id is outside the vocabulary.
    """
    file = OpenFile.open(str(source.path))
    _check_type(file, source)
    lens = source.document_lens()
    if lens is not None:
        return _listed_documents(file, source, lens, settings)
    assert settings.separator is not None, "checked before"
    return _separated_documents(file, source, settings.separator, settings)


def _listed_documents(
    file: OpenFile, source: TokenFile, lens: NDArray[np.int64], settings: IndexSettings
) -> Documents:
    _check_length(source, int(lens.max()))
    summary = summarize_tokens(
        file,
        source.dtype,
        source.start + np.cumsum(lens),
        start=source.start,
        eod_id=settings.separator,
        vocab_size=_limit(source, settings),
    )
    if summary.first_outside is not None:
        raise _outside(source, summary.first_outside[0], settings)
    return Documents(lens.astype(np.int32), summary.document_ends)


def _separated_documents(
    file: OpenFile, source: TokenFile, separator: int, settings: IndexSettings
) -> Documents:
    lens, last, num_found = array("i"), 0, 0
    after = 0 if settings.bos_id is not None else 1
    unsigned, limit = np.dtype(f"u{source.dtype.itemsize}"), _limit(source, settings)
    for at, tokens in _blocks(file, source):
        # As unsigned numbers, negative ids are the largest.
        if int(tokens.view(unsigned).max()) >= limit:
            wrong = tokens[tokens.view(unsigned) >= limit]
            raise _outside(source, int(wrong[0]), settings)
        cuts = np.flatnonzero(tokens == separator) + (at + after)
        num_found += len(cuts)
        if len(cuts):
            found = np.diff(cuts, prepend=last)
            _check_length(source, int(found.max()))
            # The first document begins with the file, not after it.
            found = found[1:] if cuts[0] == 0 else found
            lens.frombytes(found.astype(np.int32).tobytes())
            last = int(cuts[-1])
    if not num_found:
        raise _never_found(file, source, separator)
    rest = source.num_tokens - last
    _check_length(source, rest)
    if rest:
        lens.append(rest)
    return _counted(
        np.frombuffer(lens, np.int32), separator, num_found, begins=not after, rest=rest
    )


def _counted(
    lens: NDArray[np.int32], separator: int, num_found: int, *, begins: bool, rest: int
) -> Documents:
    """Count how documents end and begin, from their lengths and the number of separators."""
    # A document of the separator alone both begins and ends with it.
    num_alone = int(np.count_nonzero(lens == 1))
    lacks = len(lens) - num_found
    assert lacks in (0, 1), "only the first or the last document can lack the separator"
    if lacks:
        num_alone -= int(lens[0 if begins else -1] == 1)
    num_eod, num_begin = (num_alone, num_found) if begins else (num_found, num_alone)
    count = len(lens)
    return Documents(lens, DocumentEnds(separator, count, count, count, num_eod, num_begin))


def _blocks(file: OpenFile, source: TokenFile) -> Iterator[tuple[int, NDArray[np.integer]]]:
    """All tokens in blocks, each with its place. The next one overwrites the last."""
    # The kernel then reads further ahead while a block is searched. macOS has no such call.
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    token_bytes = source.dtype.itemsize
    block = _BLOCK_BYTES // token_bytes
    buffer = np.empty(min(block, source.num_tokens), source.dtype)
    for at in range(0, source.num_tokens, block):
        tokens = buffer[: min(block, source.num_tokens - at)]
        file.read_into(tokens, at=source.header_bytes + at * token_bytes)
        yield at, tokens


def _limit(source: TokenFile, settings: IndexSettings) -> int:
    """Ids from 0 to below this are accepted."""
    return min(settings.most_ids or _MOST_IDS, np.iinfo(f"u{source.dtype.itemsize}").max + 1)


def _check_type(file: OpenFile, source: TokenFile) -> None:
    """Check that tokens are not parts of larger ones."""
    if source.names_type or source.num_tokens < _TYPE_TOKENS:
        return
    _, tokens = next(_blocks(file, source))
    unsigned = tokens.view(f"u{tokens.itemsize}")
    for larger in (8, 4, 2):
        parts = larger // tokens.itemsize
        if parts > 1 and source.num_tokens % parts == 0 and _are_parts(unsigned, parts):
            raise CorruptShardError(
                f"{source.path}: its tokens look like ids of {larger} bytes, read "
                f"{counted(tokens.itemsize, 'byte')} at a time: those in the place of the higher "
                f"bytes are small. Give --dtype uint{8 * larger} instead of {source.dtype.name}. "
                f"If the type is right, save the array with numpy.save, whose header names it."
            )


def _are_parts(tokens: NDArray[np.integer], parts: int) -> bool:
    """Whether neighbouring tokens are the parts of one id each, the lowest first."""
    columns = tokens[: len(tokens) // parts * parts].reshape(-1, parts)
    highest = columns.max(axis=0)
    if parts * tokens.itemsize > 2:
        # Ids have up to 24 bits, and most vocabularies far fewer.
        limits = [_MOST_UPPER if at * tokens.itemsize == 2 else 0 for at in range(parts)]
        upper = [at for at in range(parts) if at * tokens.itemsize >= 2]
        return highest[0] > _MOST_UPPER and all(highest[at] <= limits[at] for at in upper)
    # Vocabularies leave the largest higher bytes unused, and few of the others are frequent, while
    # lower bytes take all values. Bytes of text have no such difference.
    counts = np.array([np.bincount(columns[:, at], minlength=256) for at in range(parts)])
    difference = float(np.abs(np.diff(counts, axis=0)).sum()) / (2 * len(columns))
    return highest[1] < highest[0] and difference > 0.2 + (128 / len(columns)) ** 0.5


def _check_length(source: TokenFile, longest: int) -> None:
    if longest > _LONGEST:
        raise CorruptShardError(
            f"{source.path}: a document has {longest:,} tokens, and the format stores up to "
            f"{_LONGEST:,}. Give the id that ends each document."
        )


def _outside(source: TokenFile, token_id: int, settings: IndexSettings) -> VocabularyError:
    limit = _limit(source, settings)
    what = "the vocabulary" if settings.most_ids else "any vocabulary"
    return VocabularyError(
        f"{source.path}: holds the token id {token_id:,}, expected 0 to {limit - 1:,}, the ids of "
        f"{what}. Another tokenizer made the file, or it holds no ids of type "
        f"{source.dtype.name}: check --dtype and the vocabulary."
    )


def _never_found(file: OpenFile, source: TokenFile, separator: int) -> CorruptShardError:
    """The error for a file without separators; names the most frequent ids."""
    counts = np.zeros(0, np.int64)
    num_read = 0
    for _, tokens in _blocks(file, source):
        found = np.bincount(tokens, minlength=len(counts))
        found[: len(counts)] += counts
        counts, num_read = found, num_read + len(tokens)
        if num_read >= _SAMPLED_TOKENS:
            break
    most = np.argsort(-counts, kind="stable")[:5]
    shown = ", ".join(f"{token} ({counts[token]:,} times)" for token in most if counts[token])
    return CorruptShardError(
        f"{source.path}: the id {separator} never occurs, so no end of a document is known. The "
        f"most frequent ids in its first {num_read:,} tokens: {shown}. Give the id that ends "
        f"documents, or the right --dtype."
    )
