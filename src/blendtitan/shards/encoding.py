"""Whether documents have the ids that a tokenizer gives their text, found from the ids alone.

The ids are decoded, and the text is encoded again by the reference tier. Ids that a tokenizer gave
come back, so a document with other ids was encoded by something else, or wrongly. Not every
document can be judged: where the text cannot be recovered exactly, ids may differ for that reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendtitan.shards.tokens import TextSymbols
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.tokenizers.fast import first_difference

MAX_TOKENS = 1 << 20
"""Tokens of one shard that are compared at most."""

_CONTEXT_IDS = 8


@dataclass(slots=True)
class Comparison:
    """What comparing documents of a shard found."""

    documents: int = 0
    """Documents that were decoded and encoded again."""

    unjudged: int = 0
    """Those whose text could not be recovered exactly."""

    differing: list[int] = field(default_factory=list)
    """Documents that have other ids than their text."""

    example: str = ""
    """Where the first of them differs."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tokenizer, and which documents of each shard are compared with it."""

    tokenizer: Tokenizer
    eod_id: int | None
    num_documents: int


def text_symbols(tokenizer: Tokenizer) -> TextSymbols:
    """The ids of a tokenizer that say something about the text of a document."""
    bos_id, unk_id = tokenizer.bos_id, tokenizer.unknown_id
    return TextSymbols(None if bos_id == ABSENT else bos_id, None if unk_id == ABSENT else unk_id)


def compare_encoding(index: ShardIndex, encoding: Encoding) -> Comparison:
    """Compare documents spread over a shard with the ids that the tokenizer gives their text."""
    tokenizer = encoding.tokenizer
    control = tokenizer.control_ids()
    found = Comparison()
    judged: list[tuple[int, NDArray[np.int64]]] = []
    for document_id, tokens in _documents(index, encoding.num_documents):
        body = _body(tokens, encoding)
        found.documents += 1
        if _is_text(body, tokenizer, control):
            judged.append((document_id, body))
        else:
            found.unjudged += 1
    texts = [tokenizer.decode(body) for _, body in judged]
    encoded = _encoded(tokenizer, texts)
    for (document_id, body), text, expected in zip(judged, texts, encoded, strict=True):
        if np.array_equal(body, expected):
            continue
        if "\ufffd" in text or tokenizer.decode(expected) != text:
            found.unjudged += 1
            continue
        found.differing.append(document_id)
        found.example = found.example or _example(document_id, body, expected)
    return found


def encoding_problem(index: ShardIndex, encoding: Encoding, found: Comparison) -> str | None:
    """A sentence about documents with other ids than their text, None if there are none."""
    if not found.differing:
        return None
    return (
        f"{index.prefix}: {len(found.differing):,} of the {found.documents:,} documents that were "
        f"compared have other ids than {encoding.tokenizer.path} gives their text. {found.example} "
        f"The shard was written with another tokenizer, or by a fast tokenizer that was wrong: "
        f"tokenise it again."
    )


def _spread(num_documents: int, num_chosen: int) -> list[int]:
    """At most so many documents, at equal distances, the first and the last among them."""
    if not num_documents or not num_chosen:
        return []
    count = min(num_documents, num_chosen)
    return np.unique(np.linspace(0, num_documents - 1, count).round().astype(np.int64)).tolist()


def _documents(index: ShardIndex, num_chosen: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Tokens of documents spread over the shard, up to a limit for all of them together."""
    file = OpenFile.open(f"{index.prefix}.bin")
    num_tokens = 0
    for document_id in _spread(index.num_documents, num_chosen):
        start, stop = index.document_starts(document_id, document_id + 1).tolist()
        num_tokens += stop - start
        if num_tokens > MAX_TOKENS:
            break
        tokens = np.empty(stop - start, index.dtype)
        file.read_into(tokens, at=start * index.dtype.itemsize)
        yield document_id, tokens.astype(np.int64)


def _body(tokens: NDArray[np.int64], encoding: Encoding) -> NDArray[np.int64]:
    """A document without its EOD, and without BOS in front."""
    if len(tokens) and tokens[-1] == encoding.eod_id:
        tokens = tokens[:-1]
    if len(tokens) and tokens[0] == encoding.tokenizer.bos_id:
        tokens = tokens[1:]
    return tokens


def _is_text(body: NDArray[np.int64], tokenizer: Tokenizer, control: frozenset[int]) -> bool:
    """Whether every id stands for text: none is another tokenizer's, unknown, or a control id."""
    is_inside = (body >= 0) & (body < tokenizer.vocab_size) & (body != tokenizer.unk_id)
    return bool(is_inside.all()) and control.isdisjoint(body.tolist())


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[NDArray[np.int64]]:
    if not texts:
        return []
    ids, lens = tokenizer.encode_batch(texts)
    return np.split(ids.astype(np.int64), np.cumsum(lens)[:-1])


def _example(document_id: int, found: NDArray[np.int64], expected: NDArray[np.int64]) -> str:
    at = first_difference(found, expected)
    window = slice(at, at + _CONTEXT_IDS)
    return (
        f"The first is document {document_id}: from token {at:,} on it has "
        f"{found[window].tolist()}, expected {expected[window].tolist()}."
    )
