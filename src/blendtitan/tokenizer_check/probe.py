"""A bounded sample of the documents of many shards, and what it says of a tokenizer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.files import io_map
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tokenizer_check.fit import DocumentStart, Fit, Verdict, fit
from blendtitan.tokenizers import Tokenizer

_MOST_SHARDS = 48
"""Unless there are more corpora: a shard of each is looked at."""

_TOKENS = 12_288
"""Of all shards together, unless that is too little for each."""

_TOKENS_OF_SHARD = 256
_MOST_TOKENS = 131_072

_PLACES = 4
_TOKENS_OF_PLACE = 128
"""Places in a shard at most, and tokens at each at least. A place is the start of a document."""


_KNOWN_TEXT = """\
When a library reads a document, it first looks for the words that it has seen before, and cuts the
others into shorter pieces. Nothing about this is surprising: "understanding" may be one piece, or
two, or thirteen. In 1984, about 3,141 of 59,265 readers preferred the second edition; by 2026 the
publisher had sold another 271,828 copies (at $19.99 each) to people in Zürich and São Paulo.

def running_mean(values: list[float], width: int = 5) -> list[float]:
    total = sum(values[:width])
    for index in range(width, len(values)):
        total += values[index] - values[index - width]
        yield total / width  # one value for each window

Those who cannot remember the past are condemned to repeat it, which is also true of caches that
nobody invalidates, and of experiments whose configuration was never written down. Le coeur a ses
raisons que la raison ne connaît point. Wer rastet, der rostet; und wer fragt, bekommt Antworten.
https://example.org/archive?year=2026&month=11 lists unreasonably long, unpronounceable identifiers.
"""
"""Long enough for every tokenizer that can recognise its own tokens to do so."""


class ProbedShard(NamedTuple):
    """A shard whose tokens were compared."""

    prefix: str
    corpus: str
    fit: Fit

    verdict: Verdict
    """By its own tokens, or where they are too few, by those of its corpus."""


def probe(
    corpus_of: Mapping[str, str], tokenizer: Tokenizer, *, eod_id: int | None
) -> list[ProbedShard]:
    """Compare tokens of some shards with a tokenizer: of every corpus, of 48 shards if possible.

    Args:
        corpus_of: The corpus of each shard, by prefix.
        tokenizer: Decodes and encodes.
        eod_id: Token that ends documents, and is not compared.

    Raises:
        ShardError: A shard cannot be read.
    """
    chosen = _chosen(corpus_of)
    number = max(1, len(chosen))
    num_tokens = min(max(_TOKENS_OF_SHARD, _TOKENS // number), _MOST_TOKENS // number)
    samples = io_map(lambda prefix: _documents(prefix, max(1, num_tokens)), chosen)
    ends = () if eod_id is None else (eod_id,)
    apart = np.array([*tokenizer.control_ids(), *ends], np.int64)
    fits = [fit(tokenizer, documents, apart=apart) for documents in samples]
    of_corpus: dict[str, Fit] = {}
    for prefix, found in zip(chosen, fits, strict=True):
        corpus = corpus_of[prefix]
        of_corpus[corpus] = of_corpus.get(corpus, Fit()) + found
    probed = [
        ProbedShard(prefix, corpus_of[prefix], found, _verdict(found, of_corpus[corpus_of[prefix]]))
        for prefix, found in zip(chosen, fits, strict=True)
    ]
    is_wrong = any(shard.verdict is Verdict.MISMATCH for shard in probed)
    if is_wrong and not knows_its_own(tokenizer):
        return [shard if shard.fit.outside else _in_doubt(shard) for shard in probed]
    return probed


def knows_its_own(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer recognises a text that it encoded itself.

    One without a decoder does not: it would refuse its own shards.
    """
    tokens, _ = tokenizer.encode_batch([_KNOWN_TEXT])
    apart = np.array(sorted(tokenizer.control_ids()), np.int64)
    own = fit(tokenizer, [DocumentStart(tokens.astype(np.int64), is_cut=False)], apart=apart)
    return own.verdict is Verdict.MATCH


def _in_doubt(shard: ProbedShard) -> ProbedShard:
    return shard._replace(verdict=Verdict.UNCLEAR)


def _verdict(shard: Fit, corpus: Fit) -> Verdict:
    """Of a shard, whose sample may be small: it stands out only where it is wrong beyond doubt."""
    if shard.is_certainly_wrong or corpus.verdict is not Verdict.MATCH:
        return corpus.verdict if shard.verdict is Verdict.UNCLEAR else shard.verdict
    return Verdict.MATCH


def _chosen(corpus_of: Mapping[str, str]) -> list[str]:
    """One shard of each corpus at least, and more where few corpora leave room, spread evenly."""
    by_corpus: dict[str, list[str]] = {}
    for prefix, corpus in corpus_of.items():
        by_corpus.setdefault(corpus, []).append(prefix)
    of_each = max(1, _MOST_SHARDS // max(1, len(by_corpus)))
    return [prefix for prefixes in by_corpus.values() for prefix in _spread(prefixes, of_each)]


def _spread(prefixes: Sequence[str], most: int) -> list[str]:
    number = min(most, len(prefixes))
    return [prefixes[(2 * i + 1) * len(prefixes) // (2 * number)] for i in range(number)]


def _documents(prefix: str, num_tokens: int) -> list[DocumentStart]:
    """The first tokens of documents at some places of a shard, ``num_tokens`` together."""
    index = ShardIndex.open(prefix)
    file = OpenFile.open(f"{prefix}.bin")
    places = max(1, min(_PLACES, num_tokens // _TOKENS_OF_PLACE, index.num_documents))
    firsts = {index.num_documents * i // places for i in range(places)}
    return [
        document
        for first in sorted(firsts)
        for document in _documents_from(index, file, first, num_tokens // places)
    ]


def _documents_from(
    index: ShardIndex, file: OpenFile, first: int, num_tokens: int
) -> list[DocumentStart]:
    """The documents from ``first`` on, up to so many tokens; short ones give several."""
    last = min(first + num_tokens, index.num_documents)
    starts = index.document_starts(first, last)
    begin, end = int(starts[0]), int(min(starts[-1], starts[0] + num_tokens))
    data: NDArray[np.integer] = np.frombuffer(
        file.read((end - begin) * index.dtype.itemsize, at=begin * index.dtype.itemsize),
        index.dtype,
    )
    cuts = starts[1:][starts[1:] < end] - begin
    parts = np.split(data.astype(np.int64), cuts)
    is_cut = end < starts[-1] and not np.any(starts == end)
    return [DocumentStart(part, is_cut and part is parts[-1]) for part in parts if len(part)]
