"""One pass over the tokens of a ``.bin``: their range, and how documents begin and end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import OpenFile
from blendtitan.storage.records import DocumentEnds
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted

IntArray = NDArray[np.int64]

# Small enough that the second look at a block finds it in the processor's cache.
_BLOCK_TOKENS = 1 << 19


@dataclass(frozen=True, slots=True)
class TextSymbols:
    """Ids that say something about the text of a document. None: do not look for it."""

    bos_id: int | None = None
    unk_id: int | None = None

    @classmethod
    def of_tokenizer(cls, tokenizer: Tokenizer) -> Self:
        """The ids of a tokenizer, as far as it has them."""
        ids = tokenizer.bos_id, tokenizer.unknown_id
        return cls(*(None if symbol == ABSENT else symbol for symbol in ids))


@dataclass(slots=True)
class TokenSummary:
    """What one pass over the tokens found."""

    eod_id: int | None = None
    """The token that was counted at document ends. None: no token was."""

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
    """Documents whose last token is EOD."""

    first_without_eod: int | None = None
    num_eod_only: int = 0
    """Documents that consist of EOD, or of BOS and EOD."""

    unk_id: int | None = None
    num_unknown: int = 0
    """Documents that contain the token for unknown text, ``unk_id``."""

    last_unknown: int | None = None
    """The last such document so far."""

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
    end_blocks: Iterable[IntArray],
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
        eod_id: Counted at document ends. None: not counted.
        vocab_size: Ids from 0 to below this are valid. None: every id from 0 on.
        symbols: Ids that are counted as well.
        on_block: Called with the bytes of the file, block by block, in order.

    Raises:
        CorruptShardError: The file ends before the last document.
        MissingShardError: It cannot be read.
    """
    symbols = symbols or TextSymbols()
    summary = TokenSummary(eod_id=eod_id, unk_id=symbols.unk_id)
    limit = np.iinfo(dtype).max + 1 if vocab_size is None else vocab_size
    start, previous_token = 0, -1
    for ends in end_blocks:
        lens = np.diff(ends, prepend=start)
        for at, tokens in _token_blocks(file, dtype, start, int(ends[-1])):
            on_block(tokens.data.cast("B"))
            block = _Block(tokens, at, ends, lens)
            _add_range(summary, block, limit)
            _add_begins(summary, block)
            if eod_id is not None:
                _add_ends(summary, block, eod_id)
                _add_eod_only(summary, block, eod_id, symbols.bos_id, previous_token)
            if symbols.unk_id is not None:
                _add_unknown(summary, block, symbols.unk_id)
            previous_token = int(tokens[-1])
        summary.num_documents += len(ends)
        summary.num_empty += int((lens == 0).sum())
        start = int(ends[-1])
    return summary


def text_notes(
    num_documents: int, *, num_unknown: int | None, num_eod_only: int | None
) -> Iterator[str]:
    """Sentences about documents that teach a model nothing, if there are any."""
    documents, is_one = counted(num_documents, "document"), num_documents == 1
    if num_unknown:
        yield (
            f"{num_unknown:,} of {documents} {'contains' if is_one else 'contain'} the token for "
            f"unknown text: the tokenizer lacks some of their characters"
        )
    if num_eod_only:
        verb = "consists" if is_one else "consist"
        yield f"{num_eod_only:,} of {documents} {verb} of EOD only"


def _token_blocks(
    file: OpenFile, dtype: np.dtype[Any], start: int, stop: int
) -> Iterator[tuple[int, NDArray[np.integer]]]:
    buffer = np.empty(min(_BLOCK_TOKENS, stop - start), dtype)
    for at in range(start, stop, _BLOCK_TOKENS):
        tokens = buffer[: min(_BLOCK_TOKENS, stop - at)]
        file.read_into(tokens, at=at * dtype.itemsize)
        yield at, tokens


class _Block:
    """Tokens of the file from ``at`` on, and the documents that end within them."""

    def __init__(
        self, tokens: NDArray[np.integer], at: int, ends: IntArray, lens: IntArray
    ) -> None:
        self.tokens, self.at, self.all_ends, self.all_lens = tokens, at, ends, lens
        first, last = np.searchsorted(ends, [at, at + len(tokens)], "right")
        self.first = int(first)
        """Number, among ``all_ends``, of the first document that ends here."""
        self.ends = ends[first:last] - at
        self.lens = lens[first:last]


def _add_range(summary: TokenSummary, block: _Block, limit: int) -> None:
    tokens, at = block.tokens, block.at
    low, high = int(tokens.min()), int(tokens.max())
    if summary.first_outside is None and (low < 0 or high >= limit):
        place = int(np.flatnonzero((tokens < 0) | (tokens.astype(np.int64) >= limit))[0])
        document = int(np.searchsorted(block.all_ends, at + place, "right"))
        summary.first_outside = int(tokens[place]), summary.num_documents + document
    summary.min_id = min(summary.min_id, low) if at else low
    summary.max_id = max(summary.max_id, high) if at else high


def _add_begins(summary: TokenSummary, block: _Block) -> None:
    begins = (block.all_ends - block.all_lens)[block.all_lens > 0] - block.at
    first, last = np.searchsorted(begins, [0, len(block.tokens)])
    found = block.tokens[begins[first:last]]
    if summary.first_token is None and len(found):
        summary.first_token = int(found[0])
    summary.num_begin += int(np.count_nonzero(found == summary.first_token))
    if summary.eod_id is not None:
        summary.num_begin_eod += int(np.count_nonzero(found == summary.eod_id))


def _add_ends(summary: TokenSummary, block: _Block, eod_id: int) -> None:
    # A document without tokens ends where the one before it does: it has no last token.
    is_filled = block.lens > 0
    is_eod = block.tokens[block.ends[is_filled] - 1] == eod_id
    summary.num_eod += int(is_eod.sum())
    if summary.first_without_eod is None and not is_eod.all():
        document = block.first + int(np.flatnonzero(is_filled)[int(np.argmin(is_eod))])
        summary.first_without_eod = summary.num_documents + document


def _add_eod_only(
    summary: TokenSummary, block: _Block, eod_id: int, bos_id: int | None, previous_token: int
) -> None:
    is_short = (block.lens == 1) | (block.lens == 2)
    ends, lens = block.ends[is_short], block.lens[is_short]
    is_eod = block.tokens[ends - 1] == eod_id
    # The first token of a document that the block cuts is the last one of the block before. An
    # unsigned type has no place for the -1 that stands for no token.
    before_last = block.tokens[np.maximum(ends - 2, 0)].astype(np.int64)
    leading = np.where(ends >= 2, before_last, previous_token)
    is_bos = leading == (-1 if bos_id is None else bos_id)
    summary.num_eod_only += int(np.count_nonzero(is_eod & ((lens == 1) | is_bos)))


def _add_unknown(summary: TokenSummary, block: _Block, unk_id: int) -> None:
    places = np.flatnonzero(block.tokens == unk_id) + block.at
    if not len(places):
        return
    found = np.unique(np.searchsorted(block.all_ends, places, "right")) + summary.num_documents
    # A document may lie in several blocks.
    summary.num_unknown += len(found) - int(found[0] == summary.last_unknown)
    summary.last_unknown = int(found[-1])
