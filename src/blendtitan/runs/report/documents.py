"""The documents of a run's corpora: their lengths, and the text of a few samples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.runs.contents import Contents
from blendtitan.runs.explain import Explained, explain_slots
from blendtitan.runs.open import OpenRun
from blendtitan.shards.document_lengths import DocumentLengths

IntArray = NDArray[np.int64]

MOST_DOCUMENTS = 200_000
"""Most documents of a corpus to count; a larger corpus is sampled evenly."""

_MOST_SHARDS = 16
_BLOCKS = 8

# Bins grow by a factor of the square root of two; the last one ends where int64 does.
_EDGES = np.unique([0, *np.round(2.0 ** np.arange(0, 62, 0.5)).astype(np.int64).tolist()])

OF_EACH = 2
"""Sample texts of a corpus."""

MOST_SAMPLES = 60
"""Sample texts of all corpora together; the first corpora get them."""

_LOOKED_AT = 4096
_AT_ONCE = 256
_DOCUMENTS = 3
_TEXT = 700
_TOKENS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusLengths:
    """Tokens per document of one corpus, in the split."""

    num_documents: int
    num_counted: int
    """Fewer than ``num_documents``: the numbers below are of a sample."""
    quantiles: tuple[int, ...]
    """The shortest, the median, the 90th percentile and the longest."""
    edges: IntArray
    """Starts of the bins, and the end of the last. Shape ``(B + 1,)``."""
    fractions: NDArray[np.float64]
    """Fraction of the documents in each bin. Shape ``(B,)``."""

    @property
    def is_sample(self) -> bool:
        """Whether only some documents were counted."""
        return self.num_counted < self.num_documents


def corpus_lengths(contents: Contents) -> dict[str, CorpusLengths]:
    """Document lengths of every corpus in the split; ShardError for a missing or damaged shard."""
    shards = contents.shards_of_corpora()
    return {name: _lengths(contents, own) for name, own in shards.items()}


def _lengths(contents: Contents, shards: Sequence[int]) -> CorpusLengths:
    ranges = {shard: contents.document_range(shard) for shard in shards}
    total = sum(stop - first for first, stop in ranges.values())
    lengths = DocumentLengths()
    # All documents if they are few; otherwise blocks at even distances, of shards likewise.
    is_sample = total > MOST_DOCUMENTS
    chosen = list(ranges.values())
    if is_sample:
        places = np.linspace(0, len(shards) - 1, min(_MOST_SHARDS, len(shards)))
        shards = [shards[place] for place in places.round().astype(int)]
        chosen = [ranges[shard] for shard in shards]
    share = MOST_DOCUMENTS / sum(stop - first for first, stop in chosen)
    for shard, (first, stop) in zip(shards, chosen, strict=True):
        for begin, end in _blocks(first, stop, share) if is_sample else [(first, stop)]:
            lengths.add(contents.document_lens(shard, begin, end))
    counts = lengths.histogram(_EDGES)
    used = np.flatnonzero(counts)
    bins = slice(int(used[0]), int(used[-1]) + 1)
    return CorpusLengths(
        num_documents=total,
        num_counted=lengths.num_documents,
        quantiles=tuple(lengths.quantile(part) for part in (0, 0.5, 0.9, 1)),
        edges=_EDGES[bins.start : bins.stop + 1],
        fractions=counts[bins] / counts.sum(),
    )


def _blocks(first: int, stop: int, share: float) -> list[tuple[int, int]]:
    """Blocks of documents at even distances that make up ``share`` of them."""
    count = max(1, round((stop - first) * min(1.0, share) / _BLOCKS))
    if count * _BLOCKS >= stop - first:
        return [(first, stop)]
    starts = np.linspace(first, stop - count, _BLOCKS).astype(int).tolist()
    return [(start, start + count) for start in starts]


class Passage(NamedTuple):
    """Tokens of one document in a sample."""

    shard: str
    """Path without suffix, or only the name if the data is not there."""
    place: str
    """Document and tokens, in words."""
    content: str = ""
    is_text: bool = False
    """Whether the content is text; otherwise it is token ids."""
    is_cut: bool = False
    """Whether the content is cut off."""


class SampleText(NamedTuple):
    """One sample of a corpus."""

    corpus: str
    place: str
    """Step, slot and epoch, in words."""
    passages: list[Passage]
    num_more: int
    """Documents of the sample that are left out."""


def sample_texts(run: OpenRun, first_slot: int) -> tuple[SampleText, ...]:
    """Samples of each corpus from a slot on, sorted by corpus; ShardError for a damaged shard."""
    samples = explain_slots(run, _chosen(run, first_slot), with_texts=_has_tokenizer(run))
    found = [_sample_text(run, sample) for sample in samples]
    return tuple(sorted(found, key=lambda sample: sample.corpus))


def _chosen(run: OpenRun, first_slot: int) -> list[int]:
    """The first slots of each corpus, among the next few thousand that are not skipped."""
    counts: Counter[str] = Counter()
    chosen: list[int] = []
    skips = run.slots.skips
    first = skips.kept_before(first_slot)
    stop = min(first + _LOOKED_AT, max(skips.kept_before(run.num_samples), first + 1))
    for start in range(first, stop, _AT_ONCE):
        read = skips.slots_of(np.arange(start, min(start + _AT_ONCE, stop)))
        for window in run.slots.windows(read):
            if counts[window.corpus] < OF_EACH and len(chosen) < MOST_SAMPLES:
                chosen.append(window.slot)
                counts[window.corpus] += 1
        if all(counts[name] == OF_EACH for name in run.slots.corpus_tokens):
            break
    return chosen


def _has_tokenizer(run: OpenRun) -> bool:
    try:
        return run.config is not None and run.config.tokenizer() is not None
    except ConfigError:
        return False


def _sample_text(run: OpenRun, sample: Explained) -> SampleText:
    passages = list(_passages(run, sample))
    window, shown = sample.window, passages[:_DOCUMENTS]
    place = f"step {sample.place.step:,}, slot {window.slot:,}, epoch {window.epoch:,}"
    return SampleText(window.corpus, place, shown, num_more=len(passages) - len(shown))


def _passages(run: OpenRun, sample: Explained) -> Iterator[Passage]:
    for part in sample.parts:
        if part.prefix is None or run.contents is None:
            yield Passage(part.shard, f"{part.stretch.count:,} tokens, not available")
            continue
        tokens = run.contents.tokens([part.stretch])
        for document, text in zip(part.documents, part.texts, strict=True):
            own, tokens = np.split(tokens, [document.count])
            if document.is_removed(sample.window.slot):
                content, text, is_cut = "", "", False
            elif text is None:
                content, is_cut = " ".join(map(str, own[:_TOKENS].tolist())), len(own) > _TOKENS
            else:
                content, is_cut = text[:_TEXT], len(text) > _TEXT
            yield Passage(part.prefix, str(document), content, text is not None, is_cut)
