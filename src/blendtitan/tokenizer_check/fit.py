"""Test whether a tokenizer made the tokens of shards: decode, encode again, and compare.

A tokenizer gives a text one sequence of ids, so the tokens of its own documents come back. For a
tokenizer that did not make them, tokens are as good as shuffled. So a shard is judged by the
number of lost pairs of neighbouring tokens, relative to the number that is lost if the same tokens
are shuffled. If shuffling loses nothing either, as with a tokenizer that decodes to words with
spaces between them, tokens do not reveal their tokenizer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.files import io_map
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tokenizers import Tokenizer

CUT_MARGIN = 12
"""Tokens at the end of a cut document that are not compared: the following text decides them."""

# Measured with all pairs of 27 tokenizers, as a part of the pairs that shuffling loses: matches
# lost at most 0.07, even those that drop part of the text, and mismatches at least 0.33.
MATCH_BELOW = 0.15
MISMATCH_FROM = 0.3
CERTAIN_FROM = 0.6

_LEAST_LOST = 5
"""Pairs that shuffling must lose for the comparison to mean anything."""

_LEAST_LIVE_LOST = 3
"""At least this many of the lost pairs must have tokens that come back elsewhere."""

_MOST_CONTROL = 0.25
"""Highest fraction of control symbols in a match. Text is full of them if another tokenizer made
it, or if this one does not know its script; the rest may match by chance."""

_MOST_SHARDS = 48
"""Shards to compare; with more corpora, one shard of each."""

_TOKENS = 12_288
"""Tokens to compare in all shards together, unless each would have too few."""

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


class Verdict(Enum):
    """The conclusion from the tokens."""

    MATCH = "match"
    UNCLEAR = "unclear"
    MISMATCH = "mismatch"


class DocumentStart(NamedTuple):
    """The first tokens of a document."""

    tokens: NDArray[np.int64]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """Counts of pairs of neighbouring tokens that survive decoding and encoding, and are lost."""

    pairs: int = 0
    lost: int = 0
    """Pairs that did not come back."""

    shuffled_pairs: int = 0
    shuffled_lost: int = 0
    """The same for the same tokens in random order."""

    live_lost: int = 0
    shuffled_live_lost: int = 0
    """Lost pairs of tokens that come back at least once. A token that never does, such as a
    character that the decoder drops, is lost in any order and shows nothing."""

    outside: int = 0
    control: int = 0
    """Control symbols and unknown tokens, except BOS, EOD and padding."""

    def __add__(self, other: "Fit") -> "Fit":
        return Fit(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def expected_lost(self) -> float:
        """Pairs that would be lost if another tokenizer had made the tokens."""
        return self.pairs * self.shuffled_lost / max(1, self.shuffled_pairs)

    @property
    def verdict(self) -> Verdict:
        """Whether the tokenizer made the tokens."""
        expected = self.expected_lost
        if self.outside:
            return Verdict.MISMATCH
        if expected < _LEAST_LOST or self.shuffled_live_lost < _LEAST_LIVE_LOST:
            return Verdict.UNCLEAR
        if self.lost <= MATCH_BELOW * expected:
            is_text = self.control <= _MOST_CONTROL * (self.control + self.pairs)
            return Verdict.MATCH if is_text else Verdict.UNCLEAR
        is_lost = self.lost >= MISMATCH_FROM * expected and self.live_lost >= _LEAST_LIVE_LOST
        return Verdict.MISMATCH if is_lost else Verdict.UNCLEAR

    @property
    def is_certainly_wrong(self) -> bool:
        """Whether even a sample as small as that of one shard proves a mismatch."""
        many = max(4 * _LEAST_LOST, CERTAIN_FROM * self.expected_lost)
        return self.outside > 0 or (self.verdict is Verdict.MISMATCH and self.lost >= many)

    def __str__(self) -> str:
        if self.outside:
            return f"{self.outside:,} tokens are ids that this tokenizer does not have"
        control = f"; {self.control:,} tokens are control symbols" if self.control else ""
        return (
            f"of {self.pairs:,} pairs of tokens, {self.lost:,} are lost when their text is encoded "
            f"again; expected about 0 for this tokenizer, {self.expected_lost:,.0f} for another"
            f"{control}"
        )


class ProbedShard(NamedTuple):
    """A shard whose tokens were compared."""

    prefix: str
    corpus: str
    fit: Fit

    verdict: Verdict
    """Verdict from its own tokens or, if they are too few, from its corpus."""


def probe(
    corpus_of: Mapping[str, str], tokenizer: Tokenizer, *, eod_id: int | None
) -> list[ProbedShard]:
    """Compare tokens of shards of every corpus with a tokenizer: 48 shards if possible.

    ``corpus_of`` is the corpus of each shard, by prefix. ``eod_id`` ends documents, and is not
    compared.

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
        return [s if s.fit.outside else s._replace(verdict=Verdict.UNCLEAR) for s in probed]
    return probed


def knows_its_own(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer recognises text that it encoded itself; one without decoder does not."""
    tokens, _ = tokenizer.encode_batch([_KNOWN_TEXT])
    apart = np.array(sorted(tokenizer.control_ids()), np.int64)
    own = fit(tokenizer, [DocumentStart(tokens.astype(np.int64), is_cut=False)], apart=apart)
    return own.verdict is Verdict.MATCH


def fit(
    tokenizer: Tokenizer, documents: Sequence[DocumentStart], *, apart: NDArray[np.int64]
) -> Fit:
    """Measure the fit of the tokens of some documents to a tokenizer, except those in ``apart``."""
    pieces: list[NDArray[np.int64]] = []
    compared: list[NDArray[np.int64]] = []
    inner = np.setdiff1d(apart, [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id])
    control = sum(int(np.isin(document.tokens[:-1], inner).sum()) for document in documents)
    outside = 0
    for document in documents:
        for piece, is_last in _pieces(document.tokens, apart):
            unknown = int(np.count_nonzero((piece < 0) | (piece >= tokenizer.vocab_size)))
            outside += unknown
            if unknown == 0:
                pieces.append(piece)
                compared.append(piece[:-CUT_MARGIN] if is_last and document.is_cut else piece)
    if not pieces:
        return Fit(outside=outside, control=control)
    # The same tokens in random order, always the same, in pieces of the same sizes.
    tokens = np.random.default_rng(0).permutation(np.concatenate(pieces))
    shuffled = np.split(tokens, np.cumsum([len(piece) for piece in pieces])[:-1])
    texts = [tokenizer.decode(piece) for piece in [*pieces, *shuffled]]
    ids, lens = tokenizer.encode_batch(texts)
    again = np.split(ids.astype(np.int64), np.cumsum(lens)[:-1])
    dead = np.setdiff1d(np.concatenate(pieces), np.concatenate(again))
    pairs, lost, live_lost = _lost_pairs(compared, again[: len(pieces)], dead)
    of_shuffled = _lost_pairs(shuffled, again[len(pieces) :], dead)
    return Fit(
        pairs=pairs,
        lost=lost,
        shuffled_pairs=of_shuffled[0],
        shuffled_lost=of_shuffled[1],
        live_lost=live_lost,
        shuffled_live_lost=of_shuffled[2],
        outside=outside,
        control=control,
    )


def _pieces(
    tokens: NDArray[np.int64], apart: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """The tokens between those in ``apart``, and whether a piece is the last."""
    start = 0
    for end in [*np.flatnonzero(np.isin(tokens, apart)).tolist(), len(tokens)]:
        if end > start:
            yield tokens[start:end], end == len(tokens)
        start = end + 1


def _lost_pairs(
    before: Sequence[NDArray[np.int64]], after: Sequence[NDArray[np.int64]], dead: NDArray[np.int64]
) -> tuple[int, int, int]:
    """The number of neighbouring pairs, of lost pairs, and of live lost pairs."""
    wanted, missing = np.unique(_pairs(before), return_counts=True)
    total = int(missing.sum())
    found, num_found = np.unique(_pairs(after), return_counts=True)
    _, in_wanted, in_found = np.intersect1d(wanted, found, assume_unique=True, return_indices=True)
    missing[in_wanted] -= np.minimum(missing[in_wanted], num_found[in_found])
    is_dead = np.isin(wanted >> 32, dead) | np.isin(wanted & 0xFFFFFFFF, dead)
    return total, int(missing.sum()), int(missing[~is_dead].sum())


def _pairs(pieces: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    pairs = [piece[:-1] << 32 | piece[1:] for piece in pieces if len(piece) > 1]
    return np.concatenate([np.empty(0, np.int64), *pairs])


def _verdict(shard: Fit, corpus: Fit) -> Verdict:
    """The verdict on a shard. Its sample may be small, so only a certain mismatch stands out."""
    if shard.is_certainly_wrong or corpus.verdict is not Verdict.MATCH:
        return corpus.verdict if shard.verdict is Verdict.UNCLEAR else shard.verdict
    return Verdict.MATCH


def _chosen(corpus_of: Mapping[str, str]) -> list[str]:
    """Shards to compare: at least one of each corpus; more, evenly spread, if corpora are few."""
    by_corpus: dict[str, list[str]] = {}
    for prefix, corpus in corpus_of.items():
        by_corpus.setdefault(corpus, []).append(prefix)
    most = max(1, _MOST_SHARDS // max(1, len(by_corpus)))
    chosen: list[str] = []
    for prefixes in by_corpus.values():
        number = min(most, len(prefixes))
        chosen += [prefixes[(2 * i + 1) * len(prefixes) // (2 * number)] for i in range(number)]
    return chosen


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
    """The documents from ``first`` on, up to so many tokens."""
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
