"""A few samples of each corpus as they are read from a step on: where they lie, and their text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blendtitan.errors import ConfigError
from blendtitan.runs.explain import Explained, explain_slots
from blendtitan.runs.source import Source

OF_EACH = 2
"""Samples of a corpus."""

MOST_SAMPLES = 60
"""Samples of all corpora together; those of the corpora that are met first."""

_LOOKED_AT = 4096
_AT_ONCE = 256
_DOCUMENTS = 3
_TEXT = 700
_TOKENS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """Tokens of one document in a sample."""

    shard: str
    """Path without suffix, or the name alone where the data is not there."""

    place: str
    """Document and tokens, in words."""

    content: str
    is_text: bool
    """Whether the content is text. Else it is token ids."""

    is_cut: bool
    """Whether there is more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleText:
    """One sample of a corpus."""

    corpus: str
    place: str
    """Step, slot and epoch, in words."""

    passages: tuple[Passage, ...]
    num_more: int
    """Documents of the sample that are left out."""


def sample_texts(source: Source, first_slot: int) -> tuple[SampleText, ...]:
    """Samples of each corpus from a slot on, sorted by corpus.

    Raises:
        ShardError: A shard is damaged.
    """
    chosen = _chosen(source, first_slot)
    samples = explain_slots(source, chosen, with_texts=_has_tokenizer(source))
    found = [_sample_text(source, sample) for sample in samples]
    return tuple(sorted(found, key=lambda sample: sample.corpus))


def _chosen(source: Source, first_slot: int) -> list[int]:
    """The first slots of each corpus, among the next few thousand."""
    counts: Counter[str] = Counter()
    names = set(source.slots.corpus_tokens)
    chosen: list[int] = []
    stop = min(first_slot + _LOOKED_AT, max(source.num_samples, first_slot + 1))
    for start in range(first_slot, stop, _AT_ONCE):
        for window in source.slots.windows(np.arange(start, min(start + _AT_ONCE, stop))):
            if counts[window.corpus] < OF_EACH and len(chosen) < MOST_SAMPLES:
                chosen.append(window.slot)
                counts[window.corpus] += 1
        if all(counts[name] == OF_EACH for name in names):
            break
    return chosen


def _has_tokenizer(source: Source) -> bool:
    if source.run is None:
        return False
    try:
        source.run.tokenizer()
    except ConfigError:
        return False
    return True


def _sample_text(source: Source, sample: Explained) -> SampleText:
    passages = list(_passages(source, sample))
    window, place = sample.window, sample.place
    return SampleText(
        corpus=window.corpus,
        place=f"step {place.step:,}, slot {window.slot:,}, epoch {window.epoch:,}",
        passages=tuple(passages[:_DOCUMENTS]),
        num_more=max(0, len(passages) - _DOCUMENTS),
    )


def _passages(source: Source, sample: Explained) -> Iterator[Passage]:
    for part in sample.parts:
        if part.prefix is None or source.contents is None:
            yield _absent(part.stretch.shard, part.stretch.count)
            continue
        tokens = source.contents.tokens([part.stretch])
        at = 0
        for document, text in zip(part.documents, part.texts, strict=True):
            own = tokens[at : at + document.count].tolist()
            at += document.count
            last = document.first + document.count
            yield Passage(
                shard=part.prefix,
                place=f"document {document.document_id:,}, tokens {document.first:,} to {last:,} "
                f"of {document.document_tokens:,}",
                content=_ids(own) if text is None else text[:_TEXT],
                is_text=text is not None,
                is_cut=len(own) > _TOKENS if text is None else len(text) > _TEXT,
            )


def _absent(shard: str, count: int) -> Passage:
    return Passage(
        shard=shard, place=f"{count:,} tokens, not there", content="", is_text=False, is_cut=False
    )


def _ids(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens[:_TOKENS]))
