"""Check from ids alone whether a tokenizer gives the texts of documents these ids.

The ids are decoded, and the text is encoded again by the reference tier. A tokenizer gives its own
ids back, so a document with other ids was encoded by something else, or wrongly. Documents whose
text cannot be recovered exactly cannot be judged: their ids may differ for that reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tokenizers import Tokenizer
from blendtitan.tokenizers.fast import first_difference, split

IntArray = NDArray[np.int64]

MAX_TOKENS = 1 << 20
"""Most tokens of a shard to compare."""

_CONTEXT_IDS = 8


@dataclass(slots=True)
class Comparison:
    """Documents of a shard that were decoded and encoded again."""

    documents: int = 0
    unjudged: int = 0
    """Documents whose text cannot be recovered exactly."""

    differing: list[int] = field(default_factory=list)
    example: str = ""
    """The first difference, in words."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tokenizer, and the number of documents per shard to compare with it."""

    tokenizer: Tokenizer
    eod_id: int | None
    num_documents: int


def compare_encoding(index: ShardIndex, encoding: Encoding) -> Comparison:
    """Compare documents spread over a shard with the ids that the tokenizer gives their text."""
    tokenizer = encoding.tokenizer
    control = tokenizer.control_ids()
    documents = list(_documents(index, encoding))
    judged = [(at, body) for at, body in documents if _is_text(body, tokenizer, control)]
    found = Comparison(len(documents), len(documents) - len(judged))
    texts = [tokenizer.decode(body) for _, body in judged]
    encoded = split(*tokenizer.encode_batch(texts)) if texts else []
    for (document_id, body), text, expected in zip(judged, texts, encoded, strict=True):
        if np.array_equal(body, expected):
            continue
        if "\ufffd" in text or tokenizer.decode(expected) != text:
            found.unjudged += 1
            continue
        if not found.differing:
            at = first_difference(body, expected)
            window = slice(at, at + _CONTEXT_IDS)
            found.example = (
                f"The first is document {document_id}: from token {at:,} on it has "
                f"{body[window].tolist()}, expected {expected[window].tolist()}."
            )
        found.differing.append(document_id)
    return found


def encoding_problems(index: ShardIndex, encoding: Encoding, found: Comparison) -> Iterator[str]:
    """A sentence about documents with other ids than their text, if there are any."""
    if found.differing:
        yield (
            f"{index.prefix}: {len(found.differing):,} of the {found.documents:,} documents that "
            f"were compared have other ids than {encoding.tokenizer.path} gives their text. "
            f"{found.example} The shard was written with another tokenizer, or by a faulty fast "
            f"tokenizer: tokenise it again."
        )


def _documents(index: ShardIndex, encoding: Encoding) -> Iterator[tuple[int, IntArray]]:
    """Documents at equal distances over the shard, without BOS and EOD, up to ``MAX_TOKENS``."""
    file = OpenFile.open(f"{index.prefix}.bin")
    count = min(index.num_documents, encoding.num_documents)
    chosen = np.linspace(0, index.num_documents - 1, count).round().astype(np.int64)
    num_tokens = 0
    for document_id in np.unique(chosen).tolist():
        start, stop = index.document_starts(document_id, document_id + 1).tolist()
        num_tokens += stop - start
        if num_tokens > MAX_TOKENS:
            break
        stored = np.empty(stop - start, index.dtype)
        file.read_into(stored, at=start * index.dtype.itemsize)
        tokens = stored.astype(np.int64)
        if len(tokens) and tokens[-1] == encoding.eod_id:
            tokens = tokens[:-1]
        if len(tokens) and tokens[0] == encoding.tokenizer.bos_id:
            tokens = tokens[1:]
        yield document_id, tokens


def _is_text(body: IntArray, tokenizer: Tokenizer, control: frozenset[int]) -> bool:
    """Whether every id stands for text: none is another tokenizer's, unknown, or a control id."""
    is_inside = (body >= 0) & (body < tokenizer.vocab_size) & (body != tokenizer.unk_id)
    return bool(is_inside.all()) and control.isdisjoint(body.tolist())
