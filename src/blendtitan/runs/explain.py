"""The documents behind a step, a slot or a token of a run: ``blendtitan explain``."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import MAX_SLOT, check_at_least
from blendtitan.errors import ConfigError, VocabularyError
from blendtitan.runs.contents import Contents, DocumentPart
from blendtitan.runs.open import OpenRun
from blendtitan.runs.places import PLACE_HEADINGS, Place, Ranks, places_of
from blendtitan.runs.slots import Stretch, Window, step_slots
from blendtitan.settings.segments import slot_at_tokens
from blendtitan.tables import Table
from blendtitan.tokenizers import Tokenizer

if TYPE_CHECKING:
    from blendtitan.document_sources import Source

_DETAILED = 8
"""The most samples to show document by document, unless ``--full`` is given."""

_HEAD, _TAIL = 70, 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The part of a sample that comes from one shard."""

    stretch: Stretch
    prefix: str | None = None
    """Path of the shard, without suffix; None: it is missing, so the rest is unknown."""
    byte_range: tuple[int, int] | None = None
    """Bytes in the ``.bin``: the first, and the end."""
    documents: tuple[DocumentPart, ...] = ()
    texts: tuple[str | None, ...] = ()
    """Text of each document's tokens; None: not requested, removed, or not of this tokenizer."""
    sources: "tuple[Source | None, ...]" = ()
    """Source of each document; None: not requested, or not recorded."""

    @property
    def shard(self) -> str:
        """Path of the shard, or its corpus and name if the path is unknown."""
        return self.prefix or str(self.stretch.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """One sample."""

    window: Window
    place: Place
    parts: tuple[Part, ...]
    is_skipped: bool = False
    """Whether the run leaves it out."""


def ranks_of(run: OpenRun, number: int | None) -> Ranks | None:
    """The division of a step among ``number`` ranks; None if the number is not given.

    Raises:
        ConfigError: The configuration, which holds the micro batch, is not given.
    """
    if number is None:
        return None
    check_at_least("ranks", number, 1)
    if run.config is None:
        raise ConfigError("--ranks needs the micro batch size: name the run's configuration")
    return Ranks(number, run.config.micro_batch)


def select_step(
    run: OpenRun,
    step: int,
    *,
    ranks: Ranks | None = None,
    rank: int | None = None,
    sample: int | None = None,
) -> list[int]:
    """The slots of a step, of one rank's part of it, or of one sample.

    Raises:
        ConfigError: There is no such step, rank or sample, or as ``places_of``.
    """
    slots = list(step_slots(run.slots, step))
    if rank is not None:
        if ranks is None or not 0 <= rank < ranks.number:
            known = "--ranks" if ranks is None else f"a rank from 0 to {ranks.number - 1}"
            raise ConfigError(f"rank is {rank}, expected {known} with it")
        places = zip(places_of(run, slots, ranks), slots, strict=True)
        own = [(at.micro_batch or 0, at.row or 0, slot) for at, slot in places if at.rank == rank]
        slots = [slot for _, _, slot in sorted(own)]
    if sample is None:
        return slots
    if not 0 <= sample < len(slots):
        whose = "the step" if rank is None else "the rank's part of the step"
        raise ConfigError(
            f"sample is {sample}, expected 0 to {len(slots) - 1}: {whose} has {len(slots):,} "
            f"samples"
        )
    return [slots[sample]]


def select_tokens(run: OpenRun, tokens: int) -> list[int]:
    """The slot that holds the token after the first ``tokens`` tokens of the run."""
    check_at_least("tokens", tokens, 0)
    skips = run.slots.skips
    after = slot_at_tokens(tokens + 1, run.slots.lengths, skips)
    return [skips.slot_of(skips.kept_before(after) - 1)]


def explain_slots(
    run: OpenRun, slots: Sequence[int], *, ranks: Ranks | None = None, with_texts: bool = True
) -> list[Explained]:
    """The samples of some slots, with documents, bytes and texts where the data is available.

    Raises:
        ConfigError: There is no such slot, or the tokenizer cannot be used.
        ShardError: A shard is damaged.
    """
    if any(not 0 <= slot < MAX_SLOT for slot in slots):
        raise ConfigError(f"slots {min(slots)} to {max(slots)}, expected 0 to 10^15 - 1")
    tokenizer = None
    if with_texts and run.config is not None and run.contents is not None:
        tokenizer = run.config.tokenizer()
    return [
        Explained(
            window=window,
            place=place,
            is_skipped=run.slots.skips.holds(window.slot),
            parts=tuple(
                _part(run.contents, stretch, tokenizer, window.slot, with_sources=with_texts)
                for stretch in window.stretches
            ),
        )
        for window, place in zip(
            run.slots.windows(np.array(slots, np.int64)), places_of(run, slots, ranks), strict=True
        )
    ]


def _part(
    contents: Contents | None,
    stretch: Stretch,
    tokenizer: Tokenizer | None,
    slot: int,
    *,
    with_sources: bool,
) -> Part:
    if contents is None or not contents.holds(stretch):
        return Part(stretch=stretch)
    documents = contents.documents(stretch)
    texts: list[str | None] = [None] * len(documents)
    if tokenizer is not None:
        ends = np.cumsum([document.count for document in documents])
        parts = np.split(contents.tokens([stretch]), ends[:-1])
        texts = [
            None if document.is_removed(slot) else decoded(tokenizer, tokens)
            for document, tokens in zip(documents, parts, strict=True)
        ]
    return Part(
        stretch=stretch,
        prefix=contents.prefix(stretch),
        byte_range=contents.byte_range(stretch),
        documents=tuple(documents),
        texts=tuple(texts),
        sources=tuple(contents.sources(stretch, documents, read=with_sources)),
    )


def decoded(tokenizer: Tokenizer, tokens: NDArray[np.integer]) -> str | None:
    """Text of some tokens; None if a token is not of this tokenizer."""
    try:
        return tokenizer.decode(tokens)
    except VocabularyError:
        return None


@dataclass(frozen=True, slots=True)
class SampleReport:
    """Samples, for display."""

    samples: Sequence[Explained]
    is_range: bool
    """Whether they come from a range of steps: many samples are then shown as counts only."""
    is_full: bool
    """Whether every sample is shown document by document, with its whole text."""

    @property
    def is_detailed(self) -> bool:
        """Whether each sample is shown document by document."""
        return self.is_full or len(self.samples) <= _DETAILED

    def lines(self) -> Iterator[str | Table]:
        """Counts by step, then a line or a paragraph for each sample."""
        yield _samples_by_step(self.samples)
        if not (self.is_range or self.is_detailed):
            yield from ("", _sample_table(self.samples))
        for sample in self.samples if self.is_detailed else ():
            yield from ("", *_sample_lines(sample, full=self.is_full))

    def json(self) -> dict[str, Any]:
        """The samples as JSON."""
        return {"samples": [_sample_json(sample, full=self.is_full) for sample in self.samples]}


def sample_report(
    run: OpenRun,
    slots: Sequence[int],
    ranks: Ranks | None,
    *,
    is_range: bool,
    is_full: bool,
    as_json: bool,
) -> SampleReport:
    """The samples of some slots; reads only the data that is shown."""
    is_detailed = as_json or is_full or len(slots) <= _DETAILED
    if is_range and not is_detailed:
        run = replace(run, contents=None)
    samples = explain_slots(run, slots, ranks=ranks, with_texts=is_detailed)
    return SampleReport(samples, is_range, is_full)


def _samples_by_step(samples: Sequence[Explained]) -> Table:
    """One row for each step: its number of samples of each corpus."""
    corpora = sorted({sample.window.corpus for sample in samples})
    steps: dict[int | None, list[Window]] = {}
    for sample in samples:
        steps.setdefault(sample.place.step, []).append(sample.window)
    table = Table(["step", "slots", "samples", *corpora])
    for step, own in steps.items():
        counts = Counter(window.corpus for window in own)
        slots = f"{own[0].slot:,} to {own[-1].slot:,}"
        skipped = "skipped" if any(sample.is_skipped for sample in samples) else None
        name = skipped if step is None else f"{step:,}"
        table.add_row(name, slots, len(own), *(counts[name] for name in corpora))
    return table


def _sample_table(samples: Sequence[Explained]) -> Table:
    headings = ["slot", *PLACE_HEADINGS, "corpus", "epoch", "window", "documents", "shard"]
    table = Table(headings, texts=["shard"])
    for sample in samples:
        window, documents = sample.window, sum(len(part.documents) for part in sample.parts)
        place = window.slot, *astuple(sample.place), window.corpus, window.epoch, window.window
        table.add_row(*place, documents, ", ".join(part.shard for part in sample.parts))
    return table


def _sample_lines(sample: Explained, *, full: bool) -> Iterator[str]:
    """One sample, document by document."""
    window = sample.window
    yield f"slot {window.slot:,}: {'skipped' if sample.is_skipped else sample.place}"
    left = ", cut from the remainder of the epoch" if window.of_remainder else ""
    yield (
        f"  {window.corpus}: epoch {window.epoch:,}, window {window.window:,}{left}, sample "
        f"{window.draw:,} of the corpus"
    )
    for part in sample.parts:
        if part.byte_range is None:
            start, stop = _span(part.stretch.offset, part.stretch.count)
            yield (
                f"  {part.shard}: tokens {start:,} to {stop:,} of the split; without the shard, "
                f"its documents are unknown"
            )
            continue
        first_byte, end_byte = part.byte_range
        yield f"  {part.prefix}.bin: bytes {first_byte:,} to {end_byte:,}"
        for document, text, source in zip(part.documents, part.texts, part.sources, strict=True):
            shown = "" if text is None else f": {quoted(_shortened(text, full))}"
            yield f"    {document}{shown}"
            if source is not None:
                yield f"      from {source}"


def quoted(text: str) -> str:
    """A text on one line, in quotes."""
    return json.dumps(text, ensure_ascii=False)


def _shortened(text: str, full: bool) -> str:
    """The beginning and the end of a long text; all of it if ``full``."""
    if full or len(text) <= _HEAD + _TAIL + 5:
        return text
    return f"{text[:_HEAD]} ... {text[-_TAIL:]}"


def _sample_json(sample: Explained, *, full: bool) -> dict[str, Any]:
    """One sample as JSON. Ranges of bytes and tokens exclude their second number."""
    window = sample.window
    return {
        "slot": window.slot,
        **asdict(sample.place),
        **({"skipped": True} if sample.is_skipped else {}),
        "corpus": window.corpus,
        "draw": window.draw,
        "epoch": window.epoch,
        "window": window.window,
        "of_unread": window.of_remainder,
        "chapter": window.phase,
        "parts": [
            {
                "shard": part.prefix or part.stretch.key.name,
                "tokens_of_split": _span(part.stretch.offset, part.stretch.count),
                "bytes": part.byte_range and list(part.byte_range),
                "documents": [
                    {
                        "document": document.document_id,
                        "tokens": _span(document.first, document.count),
                        "document_tokens": document.document_tokens,
                        "text": None if text is None else _shortened(text, full),
                        **({} if source is None else {"source": source.json()}),
                        **_removed_json(document),
                    }
                    for document, text, source in zip(
                        part.documents, part.texts, part.sources, strict=True
                    )
                ],
            }
            for part in sample.parts
        ],
    }


def _removed_json(document: DocumentPart) -> dict[str, int]:
    slot = document.removed_from
    return {} if slot is None else {"removed_from_slot": slot}


def _span(first: int, count: int) -> list[int]:
    return [first, first + count]
