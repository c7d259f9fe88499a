"""When a document was or will be read: the order backwards."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from blendtitan.errors import ConfigError
from blendtitan.history.find import slots_reading
from blendtitan.runs.explain import Place, Ranks, place_of
from blendtitan.runs.slots import ChapterSlots, History, Stretch, Window
from blendtitan.runs.source import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One sample that holds some of a document."""

    window: Window
    place: Place
    tokens: tuple[tuple[int, int], ...]
    """Ranges of the document's tokens that it holds, in the order in which they come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document, and when it is read."""

    prefix: str
    corpus: str
    document_id: int
    num_tokens: int
    stop_slot: int
    """Readings before this slot are told."""

    readings: tuple[Reading, ...]


def when_read(
    source: Source,
    shard: str,
    document_id: int,
    *,
    stop_slot: int | None = None,
    ranks: Ranks | None = None,
) -> Document:
    """When a document is read.

    Args:
        source: The run.
        shard: Path of the document's shard, without suffix, or the end of it.
        document_id: Its number in the shard.
        stop_slot: Readings before this slot are told; None: those of the whole run.
        ranks: How steps are dealt to ranks.

    Raises:
        ConfigError: There is no such document in the split, or the order has no inverse, or the
            data is not there.
    """
    if not isinstance(source.slots, History):
        raise ConfigError(
            "when a document is read is known with order = 'blendtitan' alone: the original's "
            "order has no inverse. Ask for a step"
        )
    if source.contents is None:
        raise ConfigError(f"documents are in the data, which is not known: {source.about}")
    if stop_slot is None:
        stop_slot = source.num_samples
    prefix, whole = source.contents.document(shard, document_id)
    readings = tuple(
        Reading(
            window=window,
            place=place_of(source.slots.paces, window.slot, ranks),
            tokens=tokens,
        )
        for window in _windows(source.slots, whole, stop_slot)
        if (tokens := _held(window, whole))
    )
    return Document(
        prefix=prefix,
        corpus=whole.corpus,
        document_id=document_id,
        num_tokens=whole.count,
        stop_slot=stop_slot,
        readings=readings,
    )


def _windows(history: History, whole: Stretch, stop_slot: int) -> Iterator[Window]:
    """Windows of all chapters that may hold some of a document, in the order of their slots."""
    stops = [*history.firsts[1:], stop_slot]
    if whole.count == 0:
        return
    for chapter, stop in zip(history.orders, stops, strict=True):
        place = _row_of(chapter, whole)
        if place is None:
            continue
        row, start = place
        slots = slots_reading(
            chapter.order, row, start=start, count=whole.count, stop_slot=min(stop, stop_slot)
        )
        yield from history.windows(np.array(slots, np.int64))


def _row_of(chapter: ChapterSlots, whole: Stretch) -> tuple[int, int] | None:
    """Row and offset in it at which a document begins; None: the chapter does not read it."""
    key = (whole.corpus, whole.shard, whole.shard_id, whole.twin)
    if key not in chapter.pieces:
        return None
    position = int(chapter.piece_starts[chapter.pieces.index(key)]) + whole.offset
    row = int(np.searchsorted(chapter.row_starts, position, side="right")) - 1
    return row, position - int(chapter.row_starts[row])


def _held(window: Window, whole: Stretch) -> tuple[tuple[int, int], ...]:
    """Ranges of a document's tokens that a window holds."""
    found: list[tuple[int, int]] = []
    for stretch in window.stretches:
        if stretch.key != whole.key:
            continue
        low = max(stretch.offset, whole.offset)
        high = min(stretch.offset + stretch.count, whole.offset + whole.count)
        if low < high:
            found.append((low - whole.offset, high - whole.offset))
    return tuple(found)
