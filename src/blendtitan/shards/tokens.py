"""One pass over the tokens of a ``.bin``: their range, and how documents begin and end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import OpenFile
from blendtitan.storage.records import DocumentEnds
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted

IntArray = NDArray[np.int64]
Tokens = NDArray[np.integer]

# Small enough that the second look at a block finds it in the processor's cache.
_BLOCK_TOKENS = 1 << 19


@dataclass(frozen=True, slots=True)
class TextSymbols:
    """Ids that say something about the text of a document. None: do not look for it."""

    bos_id: int | None = None
    unk_id: int | None = None

    @classmethod
    def of_tokenizer(cls, tokenizer: Tokenizer) -> Self:
        """The ids of a tokenizer; None for those that it lacks."""
        ids = tokenizer.bos_id, tokenizer.unknown_id
        return cls(*(None if symbol == ABSENT else symbol for symbol in ids))


@dataclass(slots=True)
class TokenSummary:
    """The results of one pass over the tokens."""

    eod_id: int | None = None
    """The token that was counted at document ends. None: no count."""

    num_documents: int = 0
    num_empty: int = 0
    """Documents without tokens. They have no end, so no EOD is missing."""

    first_token: int | None = None
    """First token of the first document that has tokens."""

    num_begin: int = 0
    """Documents that begin with that token."""

    num_begin_eod: int = 0
    min_id: int = 0
    max_id: int = 0
    num_eod: int = 0
    first_without_eod: int | None = None
    num_eod_only: int = 0
    """Documents that consist of EOD, or of BOS and EOD."""

    unk_id: int | None = None
    num_unknown: int = 0
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
        """The ends of all documents. None: no token was counted at their ends."""
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
    ends: IntArray,
    *,
    start: int = 0,
    eod_id: int | None,
    vocab_size: int | None,
    symbols: TextSymbols | None = None,
    on_block: Callable[[memoryview], None] = lambda _: None,
) -> TokenSummary:
    """Read all documents of a ``.bin`` once, in blocks.

    Args:
        file: The ``.bin``.
        dtype: Token type.
        ends: Where documents end, in tokens from the start of the file, never falling. Shape
            ``(num_documents,)``.
        start: Where the first document starts.
        eod_id: Counted at document ends. None: not counted.
        vocab_size: Ids from 0 to below this are valid. None: every id from 0 on.
        symbols: Ids that are counted as well.
        on_block: Called with the bytes of the file, block by block, in order.

    Raises:
        CorruptShardError: The file ends before the last document.
        MissingShardError: It cannot be read.
    """
    symbols = symbols or TextSymbols()
    lens = np.diff(ends, prepend=start)
    num_empty = int(np.count_nonzero(lens == 0))
    summary = TokenSummary(
        eod_id=eod_id, num_documents=len(ends), num_empty=num_empty, unk_id=symbols.unk_id
    )
    limit = np.iinfo(dtype).max + 1 if vocab_size is None else vocab_size
    begins = (ends - lens)[lens > 0]
    stop = int(ends[-1]) if len(ends) else start
    buffer = np.empty(min(_BLOCK_TOKENS, stop - start), dtype)
    previous_token, last_unknown = -1, -1
    for at in range(start, stop, _BLOCK_TOKENS):
        tokens = buffer[: min(_BLOCK_TOKENS, stop - at)]
        file.read_into(tokens, at=at * dtype.itemsize)
        on_block(tokens.data.cast("B"))
        _add_range(summary, tokens, at, ends, limit, is_first=at == start)
        first, last = np.searchsorted(begins, [at, at + len(tokens)])
        _add_begins(summary, tokens[begins[first:last] - at])
        if eod_id is not None:
            first, last = np.searchsorted(ends, [at, at + len(tokens)], "right")
            filled = np.arange(first, last)[lens[first:last] > 0]
            here = ends[filled] - at
            _add_ends(summary, tokens, filled, here, eod_id)
            _add_eod_only(summary, tokens, here, lens[filled], symbols.bos_id, previous_token)
        if symbols.unk_id is not None:
            last_unknown = _add_unknown(summary, tokens, at, ends, last_unknown)
        previous_token = int(tokens[-1])
    return summary


def text_notes(
    num_documents: int, *, num_unknown: int | None, num_eod_only: int | None
) -> Iterator[str]:
    """Sentences about documents that teach a model nothing, if there are any."""
    documents, is_one = counted(num_documents, "document"), num_documents == 1
    if num_unknown:
        yield (
            f"{num_unknown:,} of {documents} {'contains' if is_one else 'contain'} the unknown "
            f"token: the tokenizer lacks some of their characters"
        )
    if num_eod_only:
        verb = "consists" if is_one else "consist"
        yield f"{num_eod_only:,} of {documents} {verb} of EOD only"


def _add_range(
    summary: TokenSummary,
    tokens: Tokens,
    at: int,
    ends: IntArray,
    limit: int,
    *,
    is_first: bool,
) -> None:
    low, high = int(tokens.min()), int(tokens.max())
    if summary.first_outside is None and (low < 0 or high >= limit):
        place = int(np.flatnonzero((tokens < 0) | (tokens.astype(np.int64) >= limit))[0])
        document = int(np.searchsorted(ends, at + place, "right"))
        summary.first_outside = int(tokens[place]), document
    summary.min_id = low if is_first else min(summary.min_id, low)
    summary.max_id = high if is_first else max(summary.max_id, high)


def _add_begins(summary: TokenSummary, first_tokens: Tokens) -> None:
    if summary.first_token is None and len(first_tokens):
        summary.first_token = int(first_tokens[0])
    summary.num_begin += int(np.count_nonzero(first_tokens == summary.first_token))
    if summary.eod_id is not None:
        summary.num_begin_eod += int(np.count_nonzero(first_tokens == summary.eod_id))


def _add_ends(
    summary: TokenSummary, tokens: Tokens, documents: IntArray, ends: IntArray, eod_id: int
) -> None:
    is_eod = tokens[ends - 1] == eod_id
    summary.num_eod += int(np.count_nonzero(is_eod))
    if summary.first_without_eod is None and not is_eod.all():
        summary.first_without_eod = int(documents[np.argmin(is_eod)])


def _add_eod_only(
    summary: TokenSummary,
    tokens: Tokens,
    ends: IntArray,
    lens: IntArray,
    bos_id: int | None,
    previous_token: int,
) -> None:
    is_only = lens == 1
    if bos_id is not None:
        # If the block cuts a document, its first token ends the block before.
        before_last = tokens[np.maximum(ends - 2, 0)]
        is_bos = np.where(ends >= 2, before_last == bos_id, previous_token == bos_id)
        is_only |= (lens == 2) & is_bos
    is_eod = tokens[ends - 1] == summary.eod_id
    summary.num_eod_only += int(np.count_nonzero(is_eod & is_only))


def _add_unknown(
    summary: TokenSummary, tokens: Tokens, at: int, ends: IntArray, last_unknown: int
) -> int:
    """Count documents with unknown text; return the last one, which the block may cut."""
    places = np.flatnonzero(tokens == summary.unk_id) + at
    documents = np.unique(np.searchsorted(ends, places, "right"))
    summary.num_unknown += int(np.count_nonzero(documents != last_unknown))
    return int(documents[-1]) if len(documents) else last_unknown
