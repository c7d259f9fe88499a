"""One step compared with the steps before it, to find what is unusual: ``explain --around``."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.runs.contents import Contents
from blendtitan.runs.explain import decoded, quoted
from blendtitan.runs.open import OpenRun
from blendtitan.runs.slots import OriginalSlots, Window, step_slots
from blendtitan.shards.document_lengths import DocumentLengths
from blendtitan.tables import Cell, Table

_SLOTS_AT_ONCE = 1024
_MOST_TOKENS = 15
_MOST_SAMPLES = 3
_MOST_TWINS = 10
_WITHOUT = (
    ", compare with fewer earlier steps (--window), or look at the other samples of the step: "
    "--step"
)
# How many times more frequent than before a token must be to be listed.
_RARE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of the documents that samples touch, each counted once for every sample."""

    median: int
    p90: int
    longest: int
    per_sample: float
    """Documents per sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedCorpus:
    """One corpus in the step and before it. Lengths are None if it has no samples."""

    name: str
    samples: int
    share: float
    share_before: float
    lens: Lengths | None
    lens_before: Lengths | None


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
    """Its fraction of the sample's tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A step and the steps before it."""

    step: int
    first_before: int
    """The first of the earlier steps; the last is ``step - 1``."""
    corpora: tuple[ComparedCorpus, ...]
    twins: tuple[tuple[int, int], ...]
    """Pairs of slots that hold the same tokens; the second slot is in the step."""
    tokens: tuple[UnusualToken, ...]
    """The tokens that distinguish the step from the steps before, most distinctive first."""
    samples: tuple[RepetitiveSample, ...]
    """The most repetitive samples of the step."""
    can_skip: bool
    """Whether the run can leave out the step: not in the original's order."""

    def lines(self) -> Iterator[str | Table]:
        """The comparison as text."""
        before = f"{self.first_before:,} to {self.step - 1:,}"
        yield from (f"Step {self.step:,} compared with the steps before it, {before}.", "")
        yield Table(
            (
                *("corpus", "samples", "share", "before"),
                *("document lengths: median", "p90", "longest", "per sample"),
                *("before: median", "p90", "longest", "per sample"),
            ),
            (
                [
                    *(c.name, c.samples, f"{c.share:.1%}", f"{c.share_before:.1%}"),
                    *(*_length_cells(c.lens), *_length_cells(c.lens_before)),
                ]
                for c in self.corpora
            ),
        )
        yield from ("", *_twin_lines(self.twins), "", "The most repetitive samples of the step:")
        yield Table(
            ("slot", "corpus", "different tokens", "most frequent", "its share"),
            (
                [
                    *(f"{s.slot:,}", s.corpus, f"{s.distinct:.1%}"),
                    *(f"{s.token} {_quoted(s.text)}", f"{s.token_share:.1%}"),
                ]
                for s in self.samples
            ),
        )
        yield from ("", "Tokens that are unusually frequent in this step:")
        yield Table(
            ("token", "text", "in the step", "per million", "before"),
            (
                [
                    *(f"{t.token}", _quoted(t.text), t.count),
                    *(f"{t.per_million:,.1f}", f"{t.per_million_before:,.1f}"),
                ]
                for t in self.tokens
            ),
        )
        if not self.can_skip:
            return
        yield from (
            "",
            "To leave this step out, add these lines to the end of the configuration, and resume",
            f"from a checkpoint of step {self.step - 1:,} or before:",
            "",
            *("[[blendcorpus.skip]]", f"from_step = {self.step}", f"to_step = {self.step}"),
        )

    def json(self) -> dict[str, Any]:
        """The comparison as JSON."""
        twins = [{"slot": slot, "same_as": earlier} for earlier, slot in self.twins]
        skip = {"skip": {"from_step": self.step, "to_step": self.step}} if self.can_skip else {}
        found = {name: value for name, value in asdict(self).items() if name != "can_skip"}
        return found | {"twins": twins} | skip


def compare_step(run: OpenRun, step: int, *, window: int = 8) -> Comparison:
    """Compare the samples of a step with those of up to ``window`` steps before it.

    Raises:
        ConfigError: The step is the first one, or the data is not there.
        ShardError: A shard is damaged.
    """
    check_at_least("window", window, 1)
    if run.contents is None:
        raise ConfigError(f"comparing steps needs the data, which is not available: {run.about}")
    if step < 2:
        raise ConfigError(f"step is {step}, expected at least 2: step 1 has no step before it")
    first = max(1, step - window)
    earlier = [slot for each in range(first, step) for slot in step_slots(run.slots, each)]
    before = _Read(run, run.contents, earlier)
    now = _Read(run, run.contents, step_slots(run.slots, step))
    repetitive = sorted(now.repetitive, key=lambda sample: sample.distinct)[:_MOST_SAMPLES]
    return Comparison(
        step=step,
        first_before=first,
        corpora=tuple(
            ComparedCorpus(
                name=name,
                samples=now.samples[name],
                share=now.share(name),
                share_before=before.share(name),
                lens=now.lengths_of(name),
                lens_before=before.lengths_of(name),
            )
            for name in sorted({*before.samples, *now.samples})
        ),
        twins=tuple(_twins(now, before)),
        tokens=tuple(_unusual(run, now.tokens, before.tokens)),
        samples=tuple(replace(sample, text=_text(run, sample.token)) for sample in repetitive),
        can_skip=not isinstance(run.slots, OriginalSlots),
    )


class _Read:
    """Token counts, lengths and digests of the samples of some slots."""

    def __init__(self, run: OpenRun, contents: Contents, slots: Sequence[int]) -> None:
        self.samples: Counter[str] = Counter()
        self.lengths: defaultdict[str, DocumentLengths] = defaultdict(DocumentLengths)
        self.tokens: Counter[int] = Counter()
        self.digests: list[tuple[int, bytes]] = []
        """Slot, and digest of its tokens."""
        self.repetitive: list[RepetitiveSample] = []
        for start in range(0, len(slots), _SLOTS_AT_ONCE):
            part = np.array(slots[start : start + _SLOTS_AT_ONCE], np.int64)
            read = [self._add(contents, window) for window in run.slots.windows(part)]
            tokens, counts = np.unique(np.concatenate(read), return_counts=True)
            self.tokens.update(dict(zip(tokens.tolist(), counts.tolist(), strict=True)))

    def _add(self, contents: Contents, window: Window) -> NDArray[np.integer]:
        """Add a window and return its tokens."""
        for stretch in window.stretches:
            contents.check_holds(stretch, window.slot, or_else=_WITHOUT)
        documents = [part for s in window.stretches for part in contents.documents(s)]
        lens = np.array([part.document_tokens for part in documents], np.int64)
        self.lengths[window.corpus].add(lens)
        self.samples[window.corpus] += 1
        tokens = contents.tokens(window.stretches)
        digest = hashlib.blake2b(tokens.astype("<i8").tobytes(), digest_size=16).digest()
        self.digests.append((window.slot, digest))
        ids, counts = np.unique(tokens, return_counts=True)
        most = int(np.argmax(counts))
        self.repetitive.append(
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

    def share(self, corpus: str) -> float:
        return self.samples[corpus] / self.samples.total()

    def lengths_of(self, corpus: str) -> Lengths | None:
        if corpus not in self.lengths:
            return None
        lengths = self.lengths[corpus]
        return Lengths(
            median=lengths.quantile(0.5),
            p90=lengths.quantile(0.9),
            longest=lengths.quantile(1),
            per_sample=lengths.num_documents / self.samples[corpus],
        )


def _twins(now: _Read, before: _Read) -> Iterator[tuple[int, int]]:
    """Slots of the step that hold the same tokens as an earlier slot, and that slot."""
    known: dict[bytes, int] = {}
    for slot, digest in before.digests:
        known.setdefault(digest, slot)
    for slot, digest in now.digests:
        if digest in known:
            yield known[digest], slot
        known.setdefault(digest, slot)


def _unusual(run: OpenRun, now: Counter[int], before: Counter[int]) -> Iterator[UnusualToken]:
    """Tokens that were rarer before, the most distinctive first.

    A token's score is its count times the logarithm of how much more frequent it is: its part
    of the divergence of the step's tokens from those before. Half a count is added to each
    earlier count, so that a new token has a finite ratio.
    """
    num_now, num_before = now.total(), before.total()

    def ratio(token: int) -> float:
        return now[token] / num_now / (before[token] + 0.5) * num_before

    def score(token: int) -> float:
        return now[token] * math.log(ratio(token))

    rare = [token for token in now if ratio(token) >= _RARE]
    for token in sorted(rare, key=lambda token: (-score(token), token))[:_MOST_TOKENS]:
        yield UnusualToken(
            token=token,
            text=_text(run, token),
            count=now[token],
            per_million=now[token] / num_now * 1e6,
            per_million_before=before[token] / num_before * 1e6,
        )


def _text(run: OpenRun, token: int) -> str | None:
    """The text of a token after itself: at the beginning, SentencePiece drops a leading space."""
    assert run.config is not None
    one, two = (decoded(run.config.tokenizer(), np.array([token] * n)) for n in (1, 2))
    return one if one is None or two is None else two.removeprefix(one) or one


def _twin_lines(twins: Sequence[tuple[int, int]]) -> Iterator[str]:
    if not twins:
        yield "No two samples of these steps have the same tokens."
        return
    yield f"{len(twins):,} samples have the same tokens as an earlier sample of these steps:"
    for earlier, slot in twins[:_MOST_TWINS]:
        yield f"  slot {slot:,} is the same as slot {earlier:,}"
    if len(twins) > _MOST_TWINS:
        yield f"  and {len(twins) - _MOST_TWINS:,} more"


def _length_cells(lengths: Lengths | None) -> list[Cell]:
    if lengths is None:
        return [None] * 4
    return [lengths.median, lengths.p90, lengths.longest, f"{lengths.per_sample:.3g}"]


def _quoted(text: str | None) -> str:
    return "" if text is None else quoted(text)
