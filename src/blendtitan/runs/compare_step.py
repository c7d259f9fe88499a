"""One step against the steps before it: what is unusual in what it reads."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.runs.contents import Contents
from blendtitan.runs.explain import decoded
from blendtitan.runs.slots import Window, step_slots
from blendtitan.runs.source import Source
from blendtitan.shards.document_lengths import DocumentLens

_SLOTS_AT_ONCE = 1024
_MOST_TOKENS = 15
_MOST_SAMPLES = 3
# Times that a token must be more frequent in the step than before to be told.
_RARE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Lens:
    """Tokens of the documents that samples touch, each counted once for every sample."""

    median: int
    p90: int
    longest: int
    per_sample: float
    """Documents per sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusAround:
    """One corpus in the step and before it."""

    name: str
    samples: int
    share: float
    share_before: float
    lens: Lens | None
    """None: no sample is of it."""

    lens_before: Lens | None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnusualToken:
    """A token that is at least twice as frequent in the step as before."""

    token: int
    text: str | None
    count: int
    per_million: float
    per_million_before: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RepetitiveSample:
    """A sample of few different tokens."""

    slot: int
    corpus: str
    distinct: float
    """Different tokens per token."""

    token: int
    """The most frequent one."""

    text: str | None
    token_share: float
    """Of all tokens of the sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A step and the steps before it."""

    step: int
    first_before: int
    """First of the steps before; the last of them is the one before ``step``."""

    corpora: tuple[CorpusAround, ...]
    twins: tuple[tuple[int, int], ...]
    """Pairs of slots that hold the same tokens, the second of them in the step."""

    tokens: tuple[UnusualToken, ...]
    """Those that tell the step most from the steps before, the most telling first."""

    samples: tuple[RepetitiveSample, ...]
    """The most repetitive samples of the step."""


@dataclass(slots=True)
class _Read:
    """What some steps read."""

    samples: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    lens: dict[str, DocumentLens] = field(default_factory=dict)
    tokens: Counter[int] = field(default_factory=Counter)
    digests: list[tuple[int, bytes]] = field(default_factory=list)
    """Slot, and digest of its tokens."""

    repetitive: list[RepetitiveSample] = field(default_factory=list)

    @property
    def num_samples(self) -> int:
        return self.samples.total()


def compare_step(source: Source, step: int, *, window: int = 8) -> Comparison:
    """What a step reads against the ``window`` steps before it, or as many as there are.

    Raises:
        ConfigError: The step is the first one, or the data is not there.
        ShardError: A shard is damaged.
    """
    check_at_least("window", window, 1)
    contents = source.contents
    if contents is None:
        raise ConfigError(f"tokens are in the data, which is not known: {source.about}")
    if step < 2:
        raise ConfigError(f"step is {step}, expected at least 2: no step is before the first")
    first = max(1, step - window)
    slots = step_slots(source.slots.paces, step)
    begin = step_slots(source.slots.paces, first).start
    before = _read(source, contents, range(begin, slots.start))
    now = _read(source, contents, slots)
    now.repetitive.sort(key=lambda sample: sample.distinct)
    corpora = sorted({*before.samples, *now.samples})
    return Comparison(
        step=step,
        first_before=first,
        corpora=tuple(_corpus(name, now, before) for name in corpora),
        twins=tuple(_twins(now, before)),
        tokens=tuple(_unusual(source, now.tokens, before.tokens)),
        samples=tuple(_named(source, now.repetitive[:_MOST_SAMPLES])),
    )


def _read(source: Source, contents: Contents, slots: range) -> _Read:
    read = _Read()
    for start in range(slots.start, slots.stop, _SLOTS_AT_ONCE):
        part = np.arange(start, min(start + _SLOTS_AT_ONCE, slots.stop))
        ids: list[NDArray[np.integer]] = []
        for window in source.slots.windows(part):
            ids.append(_note(read, contents, window))
        tokens, counts = np.unique(np.concatenate(ids), return_counts=True)
        read.tokens.update(dict(zip(tokens.tolist(), counts.tolist(), strict=True)))
    return read


def _note(read: _Read, contents: Contents, window: Window) -> NDArray[np.integer]:
    """Add a window to what was read; its tokens."""
    missing = [s.shard for s in window.stretches if not contents.holds(s)]
    if missing:
        raise ConfigError(
            f"slot {window.slot:,} was read from the shard {missing[0]!r} of {window.corpus!r}, "
            f"which is not there, or no longer the same"
        )
    documents = [part for s in window.stretches for part in contents.documents(s)]
    lens = read.lens.setdefault(window.corpus, DocumentLens())
    lens.add(np.array([part.document_tokens for part in documents], np.int64))
    read.documents[window.corpus] += len(documents)
    read.samples[window.corpus] += 1
    tokens = contents.tokens(window.stretches)
    digest = hashlib.blake2b(tokens.astype("<i8").tobytes(), digest_size=16).digest()
    read.digests.append((window.slot, digest))
    ids, counts = np.unique(tokens, return_counts=True)
    most = int(np.argmax(counts))
    read.repetitive.append(
        RepetitiveSample(
            slot=window.slot,
            corpus=window.corpus,
            distinct=len(ids) / len(tokens),
            token=int(ids[most]),
            text=None,
            token_share=int(counts[most]) / len(tokens),
        )
    )
    return tokens


def _corpus(name: str, now: _Read, before: _Read) -> CorpusAround:
    return CorpusAround(
        name=name,
        samples=now.samples[name],
        share=now.samples[name] / now.num_samples,
        share_before=before.samples[name] / before.num_samples,
        lens=_lens(now, name),
        lens_before=_lens(before, name),
    )


def _lens(read: _Read, name: str) -> Lens | None:
    if name not in read.lens:
        return None
    lens = read.lens[name]
    return Lens(
        median=lens.quantile(0.5),
        p90=lens.quantile(0.9),
        longest=lens.quantile(1),
        per_sample=read.documents[name] / read.samples[name],
    )


def _twins(now: _Read, before: _Read) -> Iterator[tuple[int, int]]:
    """Slots of the step that hold what an earlier slot, of it or before it, holds."""
    known: dict[bytes, int] = {}
    for slot, digest in before.digests:
        known.setdefault(digest, slot)
    for slot, digest in now.digests:
        if digest in known:
            yield known[digest], slot
        known.setdefault(digest, slot)


def _unusual(source: Source, now: Counter[int], before: Counter[int]) -> Sequence[UnusualToken]:
    """Tokens that are rare before, by how much they tell the step from the steps before.

    What a token tells is its count times the logarithm of how much more frequent it is: its part
    of the divergence of the step's tokens from those before. Half a count is added to each of
    those before, so that one that never came has a finite ratio.
    """
    num_now, num_before = now.total(), before.total()

    def ratio(token: int) -> float:
        return now[token] / num_now / (before[token] + 0.5) * num_before

    def telling(token: int) -> float:
        return now[token] * math.log(ratio(token))

    rare = [token for token in now if ratio(token) >= _RARE]
    most = sorted(rare, key=lambda token: (-telling(token), token))[:_MOST_TOKENS]
    return [
        UnusualToken(
            token=token,
            text=_text(source, token),
            count=now[token],
            per_million=now[token] / num_now * 1e6,
            per_million_before=before[token] / num_before * 1e6,
        )
        for token in most
    ]


def _named(source: Source, samples: Sequence[RepetitiveSample]) -> Iterator[RepetitiveSample]:
    for sample in samples:
        yield RepetitiveSample(
            slot=sample.slot,
            corpus=sample.corpus,
            distinct=sample.distinct,
            token=sample.token,
            text=_text(source, sample.token),
            token_share=sample.token_share,
        )


def _text(source: Source, token: int) -> str | None:
    assert source.run is not None
    return decoded(source.run.tokenizer(), np.array([token]))
