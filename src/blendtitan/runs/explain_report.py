"""Explained samples as text and as JSON."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.history.phases import segments_read
from blendtitan.order.blend import Segment
from blendtitan.pace import Paces, step_of
from blendtitan.runs.explain import Explained, Part, Place
from blendtitan.runs.slots import Slots
from blendtitan.runs.source import Source
from blendtitan.tables import Table, number_table

DETAILED = 8
"""Most samples that are shown document by document, unless all of them are asked for."""

_HEAD, _TAIL = 70, 30


def samples_by_step(samples: Sequence[Explained]) -> Table:
    """One line for each step: how many samples of each corpus it has."""
    corpora = sorted({sample.window.corpus for sample in samples})
    table = number_table("step", "slots", "samples", *corpora)
    steps: dict[int | None, list[Explained]] = {}
    for sample in samples:
        steps.setdefault(sample.place.step, []).append(sample)
    for step, own in steps.items():
        counts = Counter(sample.window.corpus for sample in own)
        first, last = own[0].window.slot, own[-1].window.slot
        cells = (f"{counts[name]:,}" for name in corpora)
        name = "" if step is None else f"{step:,}"
        table.add_row(name, f"{first:,} to {last:,}", f"{len(own):,}", *cells)
    return table


def sample_table(samples: Sequence[Explained]) -> Table:
    """One line for each sample."""
    table = number_table(
        *("slot", "step", "sample", "rank", "micro batch", "row"),
        *("corpus", "epoch", "window", "documents"),
    )
    table.add_column("shard", is_number=False)
    for sample in samples:
        window, place = sample.window, sample.place
        numbers = (place.step, place.sample, place.rank, place.micro_batch, place.row)
        documents = sum(len(part.documents) for part in sample.parts)
        table.add_row(
            f"{window.slot:,}",
            *("" if number is None else f"{number:,}" for number in numbers),
            *(window.corpus, f"{window.epoch:,}", f"{window.window:,}", f"{documents:,}"),
            ", ".join(part.prefix or part.stretch.shard for part in sample.parts),
        )
    return table


def sample_lines(sample: Explained, *, full: bool) -> Iterator[str]:
    """One sample, document by document."""
    window = sample.window
    yield f"slot {window.slot:,}: {_placed(sample.place)}"
    left = ", cut from what the epoch had left" if window.of_unread else ""
    yield (
        f"  {window.corpus}: epoch {window.epoch:,}, window {window.window:,}{left}, sample "
        f"{window.draw:,} of the corpus"
    )
    for part in sample.parts:
        yield from _part_lines(part, full=full)


def _placed(place: Place) -> str:
    named = {
        "step": place.step,
        "sample": place.sample,
        "rank": place.rank,
        "micro batch": place.micro_batch,
        "row": place.row,
    }
    return ", ".join(f"{name} {number:,}" for name, number in named.items() if number is not None)


def _part_lines(part: Part, *, full: bool) -> Iterator[str]:
    stretch = part.stretch
    stop = stretch.offset + stretch.count
    if part.byte_range is None:
        yield f"  {stretch.shard}: tokens {stretch.offset:,} to {stop:,} of the split"
        return
    first_byte, end_byte = part.byte_range
    yield f"  {part.prefix}.bin: bytes {first_byte:,} to {end_byte:,}"
    for document, text in zip(part.documents, part.texts, strict=True):
        last = document.first + document.count
        shown = "" if text is None else f": {json.dumps(shortened(text, full), ensure_ascii=False)}"
        yield (
            f"    document {document.document_id:,}, tokens {document.first:,} to {last:,} of "
            f"{document.document_tokens:,}{shown}"
        )


def shortened(text: str, full: bool) -> str:
    """The beginning and the end of a long text; all of it where that is asked for."""
    if full or len(text) <= _HEAD + _TAIL + 5:
        return text
    return f"{text[:_HEAD]} ... {text[-_TAIL:]}"


def sample_json(sample: Explained, *, full: bool) -> dict[str, Any]:
    """One sample for programs. Ranges of bytes and tokens end before their second number."""
    window = sample.window
    return {
        "slot": window.slot,
        **asdict(sample.place),
        "corpus": window.corpus,
        "draw": window.draw,
        "epoch": window.epoch,
        "window": window.window,
        "of_unread": window.of_unread,
        "chapter": window.chapter,
        "parts": [_part_json(part, full) for part in sample.parts],
    }


def _part_json(part: Part, full: bool) -> dict[str, Any]:
    stretch = part.stretch
    return {
        "shard": part.prefix or stretch.shard,
        "tokens_of_split": [stretch.offset, stretch.offset + stretch.count],
        "bytes": None if part.byte_range is None else list(part.byte_range),
        "documents": [
            {
                "document": document.document_id,
                "tokens": [document.first, document.first + document.count],
                "document_tokens": document.document_tokens,
                "text": None if text is None else shortened(text, full),
            }
            for document, text in zip(part.documents, part.texts, strict=True)
        ],
    }


def history_table(source: Source) -> Table:
    """One line for each segment of the run: where it begins, and the share of each corpus."""
    slots, segments = source.slots, _segments(source)
    corpora = sorted({name for segment in segments for name in segment.weights})
    table = number_table("from slot", "from step", "chapter", "seq_length", *corpora)
    for segment in segments:
        number = _chapter_of(slots, segment)
        shares = _shares(segment)
        table.add_row(
            f"{segment.first_slot:,}",
            _step_text(slots.paces, segment.first_slot),
            *(f"{number:,}", f"{slots.chapters[number].seq_len:,}"),
            *(f"{shares.get(name, 0):.2%}" for name in corpora),
        )
    return table


def history_json(source: Source) -> list[dict[str, Any]]:
    """The same for programs, with the shards that each chapter reads."""
    slots = source.slots
    return [
        {
            "first_slot": segment.first_slot,
            "first_step": step_of(slots.paces, segment.first_slot) if slots.paces else None,
            "chapter": number,
            "seq_length": slots.chapters[number].seq_len,
            "shares": _shares(segment),
            "shards": {
                name: dict(zip(shards.names, shards.tokens, strict=True))
                for name, shards in slots.chapters[number].corpora.items()
            },
        }
        for segment in _segments(source)
        for number in [_chapter_of(slots, segment)]
    ]


def _segments(source: Source) -> list[Segment]:
    if not source.slots.chapters:
        raise ConfigError(
            "the original's order has one blend for the whole run, and no segments. Ask for a step"
        )
    return segments_read(source.slots.chapters)


def _chapter_of(slots: Slots, segment: Segment) -> int:
    return sum(chapter.first_slot <= segment.first_slot for chapter in slots.chapters) - 1


def _shares(segment: Segment) -> dict[str, float]:
    total = sum(segment.weights.values())
    return {name: weight / total for name, weight in segment.weights.items()}


def _step_text(paces: Paces, slot: int) -> str:
    return f"{step_of(paces, slot):,}" if paces else ""
