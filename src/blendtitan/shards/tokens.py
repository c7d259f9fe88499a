"""One pass over the tokens of a ``.bin``: their range, and how documents end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.ends import DocumentEnds
from blendtitan.storage.reader import OpenFile
from blendtitan.visible import counted

# Small enough that the second look at a block finds it in the processor's cache.
_BLOCK_TOKENS = 1 << 19


@dataclass(frozen=True, slots=True)
class TextSymbols:
    """Ids that say something about the text of a document. None: not looked for."""

    bos_id: int | None = None
    unk_id: int | None = None


@dataclass(slots=True)
class TokenSummary:
    """What one pass over the tokens found."""

    eod_id: int | None = None
    """The token that is counted at the documents' ends. None: none was."""

    num_documents: int = 0
    num_empty: int = 0
    """Documents without a token. They have no end, and no EOD is missed."""

    first_token: int | None = None
    """What the first document that has tokens begins with."""

    num_begin: int = 0
    """Documents that begin with that token."""

    num_begin_eod: int = 0
    """Documents that begin with EOD."""

    min_id: int = 0
    max_id: int = 0

    num_eod: int = 0
    """Documents whose last token is EOD."""

    first_without_eod: int | None = None
    """The first document whose last token is another."""

    num_eod_only: int = 0
    """Documents of no tokens but EOD, or BOS and EOD."""

    unk_id: int | None = None
    """The token for unknown text. None: it was not looked for."""

    num_unknown: int = 0
    """Documents that contain the token for unknown text."""

    last_unknown: int | None = None
    """The last document that does."""

    first_outside: tuple[int, int] | None = None
    """The first token id outside the vocabulary, and its document."""

    @property
    def num_filled(self) -> int:
        """Documents that have tokens."""
        return self.num_documents - self.num_empty

    @property
    def is_mixed(self) -> bool:
        """Whether some documents that have tokens end in EOD and some do not."""
        return 0 < self.num_eod < self.num_filled

    @property
    def document_ends(self) -> DocumentEnds | None:
        """How all documents end. None: no token was counted at their ends."""
        if self.eod_id is None:
            return None
        return DocumentEnds(
            eod_id=self.eod_id,
            num_documents=self.num_documents,
            num_checked=self.num_documents,
            num_filled=self.num_filled,
            num_eod=self.num_eod,
            num_begin=self.num_begin_eod,
        )


def summarize_tokens(
    file: OpenFile,
    dtype: np.dtype[Any],
    end_blocks: Iterable[NDArray[np.int64]],
    *,
    eod_id: int | None,
    vocab_size: int | None,
    symbols: TextSymbols | None = None,
    on_block: Callable[[memoryview], None] = lambda _: None,
) -> TokenSummary:
    """Read all documents of a ``.bin`` once, in blocks.

    Args:
        file: The ``.bin``.
        dtype: Token type.
        end_blocks: Where documents end, in tokens from the start of the file, never falling; in
            blocks of any size.
        eod_id: Counted at the documents' ends. None: not counted.
        vocab_size: Ids from 0 to below this are inside. None: from 0 to any.
        symbols: Counted as well. None: none are.
        on_block: Called with the bytes of the file, block by block, in order.

    Raises:
        CorruptShardError: The file ends before the last document.
        MissingShardError: It cannot be read.
    """
    symbols = symbols or TextSymbols()
    summary = TokenSummary(eod_id=eod_id, unk_id=symbols.unk_id)
    limit = np.iinfo(dtype).max + 1 if vocab_size is None else vocab_size
    start, carried = 0, -1
    for ends in end_blocks:
        lens = np.diff(ends, prepend=start)
        begins = (ends - lens)[lens > 0]
        for at, tokens in _token_blocks(file, dtype, start, int(ends[-1])):
            on_block(tokens.data.cast("B"))
            _add_range(summary, tokens, ends, at=at, limit=limit)
            _add_begins(summary, tokens, begins, at=at)
            if eod_id is not None:
                _add_ends(summary, tokens, ends, at=at, eod_id=eod_id)
                before = _Before(symbols.bos_id, start, carried)
                _add_eod_only(summary, tokens, ends, at=at, eod_id=eod_id, before=before)
            if symbols.unk_id is not None:
                _add_unknown(summary, tokens, ends, at=at, unk_id=symbols.unk_id)
            carried = int(tokens[-1])
        summary.num_documents += len(ends)
        summary.num_empty += len(ends) - len(begins)
        start = int(ends[-1])
    return summary


@dataclass(frozen=True, slots=True)
class _Before:
    """What precedes a block of tokens."""

    bos_id: int | None
    start: int
    """Where the first document of these ends starts."""

    token: int
    """The token before the block."""


def _add_eod_only(
    summary: TokenSummary,
    tokens: NDArray[np.integer],
    ends: NDArray[np.int64],
    *,
    at: int,
    eod_id: int,
    before: _Before,
) -> None:
    first, last = np.searchsorted(ends, [at, at + len(tokens)], "right")
    last_end = before.start if first == 0 else int(ends[first - 1])
    found = ends[first:last]
    lens = np.diff(found, prepend=last_end)
    short = found[(lens == 1) | (lens == 2)] - at
    short_lens = lens[(lens == 1) | (lens == 2)]
    is_eod = tokens[short - 1] == eod_id
    # A document that the block cuts has its first token in the block before. An unsigned type has
    # no place for the -1 that stands for no token.
    leading = np.where(short >= 2, tokens[np.maximum(short - 2, 0)].astype(np.int64), before.token)
    is_bos = leading == (-1 if before.bos_id is None else before.bos_id)
    summary.num_eod_only += int(np.count_nonzero(is_eod & ((short_lens == 1) | is_bos)))


def _add_unknown(
    summary: TokenSummary,
    tokens: NDArray[np.integer],
    ends: NDArray[np.int64],
    *,
    at: int,
    unk_id: int,
) -> None:
    places = np.flatnonzero(tokens == unk_id) + at
    if not len(places):
        return
    documents = np.unique(np.searchsorted(ends, places, "right")) + summary.num_documents
    # A document may lie in several blocks.
    summary.num_unknown += len(documents) - int(documents[0] == summary.last_unknown)
    summary.last_unknown = int(documents[-1])


def text_notes(
    num_documents: int, *, num_unknown: int | None, num_eod_only: int | None
) -> Iterator[str]:
    """Sentences about documents that teach a model nothing, if there are any."""
    if num_unknown:
        yield (
            f"{num_unknown:,} of {counted(num_documents, 'document')} "
            f"{'contains' if num_documents == 1 else 'contain'} the token for unknown text: "
            f"the tokenizer lacks some of their characters"
        )
    if num_eod_only:
        verb = "consists" if num_documents == 1 else "consist"
        yield f"{num_eod_only:,} of {counted(num_documents, 'document')} {verb} of EOD only"


def _token_blocks(
    file: OpenFile, dtype: np.dtype[Any], start: int, stop: int
) -> Iterator[tuple[int, NDArray[np.integer]]]:
    buffer = np.empty(min(_BLOCK_TOKENS, stop - start), dtype)
    for at in range(start, stop, _BLOCK_TOKENS):
        tokens = buffer[: min(_BLOCK_TOKENS, stop - at)]
        file.read_into(tokens, at=at * dtype.itemsize)
        yield at, tokens


def _add_range(
    summary: TokenSummary,
    tokens: NDArray[np.integer],
    ends: NDArray[np.int64],
    *,
    at: int,
    limit: int,
) -> None:
    low, high = int(tokens.min()), int(tokens.max())
    if summary.first_outside is None and (low < 0 or high >= limit):
        place = int(np.flatnonzero((tokens < 0) | (tokens.astype(np.int64) >= limit))[0])
        document_id = summary.num_documents + int(np.searchsorted(ends, at + place, "right"))
        summary.first_outside = int(tokens[place]), document_id
    summary.min_id = min(summary.min_id, low) if at else low
    summary.max_id = max(summary.max_id, high) if at else high


def _add_begins(
    summary: TokenSummary, tokens: NDArray[np.integer], begins: NDArray[np.int64], *, at: int
) -> None:
    first, last = np.searchsorted(begins, [at, at + len(tokens)])
    found = tokens[begins[first:last] - at]
    if summary.first_token is None and len(found):
        summary.first_token = int(found[0])
    summary.num_begin += int(np.count_nonzero(found == summary.first_token))
    if summary.eod_id is not None:
        summary.num_begin_eod += int(np.count_nonzero(found == summary.eod_id))


def _add_ends(
    summary: TokenSummary,
    tokens: NDArray[np.integer],
    ends: NDArray[np.int64],
    *,
    at: int,
    eod_id: int,
) -> None:
    first, last = np.searchsorted(ends, [at, at + len(tokens)], "right")
    # A document without tokens ends where the one before it does: it has no last token.
    is_last = np.diff(ends[first:last], prepend=at) > 0
    is_eod = tokens[ends[first:last][is_last] - 1 - at] == eod_id
    summary.num_eod += int(is_eod.sum())
    if not is_eod.all():
        document_id = first + int(np.flatnonzero(is_last)[int(np.argmin(is_eod))])
        if summary.first_without_eod is None:
            summary.first_without_eod = summary.num_documents + document_id
