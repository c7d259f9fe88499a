"""When a document was or will be read, by the inverse of the order: ``explain --document``."""

from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np

from blendtitan.errors import ConfigError
from blendtitan.history.find import slots_reading
from blendtitan.runs.explain import PLACE_HEADINGS, Place, Ranks, place_of
from blendtitan.runs.open import OpenRun
from blendtitan.runs.slots import History, Stretch, Window
from blendtitan.tables import Table, filled_table


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
    """Readings before this slot are listed."""

    readings: tuple[Reading, ...]

    def lines(self) -> Iterator[str | Table]:
        """A sentence, and one row for each sample that holds some of the document."""
        yield (
            f"{self.prefix}: document {self.document_id:,} ({self.num_tokens:,} tokens, corpus "
            f"{self.corpus!r}) is read by {len(self.readings):,} of the first "
            f"{self.stop_slot:,} samples."
        )
        if self.readings:
            yield ""
            yield filled_table(
                [*PLACE_HEADINGS, "slot", "epoch", "window", "tokens of the document"],
                (
                    [
                        *astuple(reading.place),
                        *(reading.window.slot, reading.window.epoch, reading.window.window),
                        ", ".join(f"{first:,} to {stop:,}" for first, stop in reading.tokens),
                    ]
                    for reading in self.readings
                ),
            )

    def json(self) -> dict[str, Any]:
        """The same for programs. Ranges of tokens end before their second number."""
        return {
            "shard": self.prefix,
            "corpus": self.corpus,
            "document": self.document_id,
            "document_tokens": self.num_tokens,
            "stop_slot": self.stop_slot,
            "readings": [
                {
                    "slot": reading.window.slot,
                    **asdict(reading.place),
                    "epoch": reading.window.epoch,
                    "window": reading.window.window,
                    "tokens": [list(span) for span in reading.tokens],
                }
                for reading in self.readings
            ],
        }


def find_document(
    run: OpenRun,
    shard: str,
    document_id: int,
    *,
    stop_slot: int | None = None,
    ranks: Ranks | None = None,
) -> Document:
    """When a document is read.

    Args:
        run: The run.
        shard: Path of the document's shard, without suffix, or the end of it.
        document_id: Its number in the shard.
        stop_slot: Readings before this slot are listed; None: those of the whole run.
        ranks: How steps are divided among ranks.

    Raises:
        ConfigError: There is no such document in the split, or the order has no inverse, or the
            data is not there.
    """
    if not isinstance(run.slots, History):
        raise ConfigError(
            "when a document is read is known only with order = 'blendtitan': the original's order "
            "has no inverse. Ask for a step"
        )
    if run.contents is None:
        raise ConfigError(f"documents are in the data, which is not known: {run.about}")
    if stop_slot is None:
        stop_slot = run.num_samples
    prefix, whole = run.contents.document(shard, document_id)
    readings = tuple(
        Reading(window=window, place=place_of(run.slots.paces, window.slot, ranks), tokens=tokens)
        for window in _windows(run.slots, whole, stop_slot)
        if (tokens := _held(window, whole))
    )
    return Document(
        prefix=prefix,
        corpus=whole.key.corpus,
        document_id=document_id,
        num_tokens=whole.count,
        stop_slot=stop_slot,
        readings=readings,
    )


def _windows(history: History, whole: Stretch, stop_slot: int) -> Iterator[Window]:
    """Windows of all phases that may hold some of a document, in the order of their slots."""
    if whole.count == 0:
        return
    stops = [*(phase.first_slot for phase in history.phases[1:]), stop_slot]
    for phase, stop in zip(history.orders, stops, strict=True):
        place = phase.row_of(whole)
        if place is not None:
            row, start = place
            last = min(stop, stop_slot)
            slots = slots_reading(phase.order, row, start=start, count=whole.count, stop_slot=last)
            yield from history.windows(np.array(slots, np.int64))


def _held(window: Window, whole: Stretch) -> tuple[tuple[int, int], ...]:
    """Ranges of a document's tokens that a window holds."""
    found: list[tuple[int, int]] = []
    for stretch in window.stretches:
        low = max(stretch.offset, whole.offset)
        high = min(stretch.offset + stretch.count, whole.offset + whole.count)
        if stretch.key == whole.key and low < high:
            found.append((low - whole.offset, high - whole.offset))
    return tuple(found)
