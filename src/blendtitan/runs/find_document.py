"""The steps that read a document, from the inverse of the order: ``explain --document``.

Few windows of each epoch overlap a document, and each step of the order has an inverse: the
permutation of an epoch is undone, and the slot of a draw is found by bisection over the number of
draws before a slot.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.history.remainder import BegunRows
from blendtitan.order.epoch import epoch_keys, epoch_shifts
from blendtitan.order.inverse import unpermute
from blendtitan.order.slots import SlotOrder
from blendtitan.runs.contents import Contents
from blendtitan.runs.open import OpenRun
from blendtitan.runs.places import PLACE_HEADINGS, Place, Ranks, places_of
from blendtitan.runs.run_folder import TOKENS
from blendtitan.runs.slots import History, Stretch, Window
from blendtitan.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One sample that holds part of a document."""

    window: Window
    place: Place
    tokens: tuple[tuple[int, int], ...]
    """Ranges of the document's tokens in the sample, in order of appearance."""
    places: tuple[int, ...]
    """Where each range begins among the tokens of the sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document, and the samples that read it."""

    prefix: str
    corpus: str
    document_id: int
    num_tokens: int
    stop_slot: int
    """Readings before this slot are listed."""
    readings: tuple[Reading, ...]
    removed_from: int | None = None
    """The first slot that is read without it. None: it is not removed."""
    left_out: tuple[Reading, ...] = ()
    """Samples from there on that read EOD in its place."""

    def lines(self) -> Iterator[str | Table]:
        """A sentence, and one row for each sample that holds part of the document."""
        yield (
            f"{self.prefix}: document {self.document_id:,} ({self.num_tokens:,} tokens, corpus "
            f"{self.corpus!r}) is read by {len(self.readings):,} of the first "
            f"{self.stop_slot:,} samples."
        )
        if self.removed_from is not None:
            yield (
                f"It is removed from slot {self.removed_from:,} on: {len(self.left_out):,} later "
                f"samples read EOD in its place."
            )
        if self.readings:
            yield ""
            yield Table(
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
        """The same as JSON. Ranges of tokens exclude their second number."""
        return {
            "shard": self.prefix,
            "corpus": self.corpus,
            "document": self.document_id,
            "document_tokens": self.num_tokens,
            "stop_slot": self.stop_slot,
            **({} if self.removed_from is None else {"removed_from_slot": self.removed_from}),
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
    shard: str | int,
    document_id: int,
    *,
    stop_slot: int | None = None,
    ranks: Ranks | None = None,
) -> Document:
    """Find the samples that read a document, before ``stop_slot`` or in the whole run.

    ``shard`` is the number of its shard, or the path, without suffix, or the end of that path.

    Raises:
        ConfigError: There is no such document in the split, or the order has no inverse, or the
            data is not there.
    """
    if not isinstance(run.slots, History):
        raise ConfigError(
            "documents can be found only with order = 'blendtitan': the original's order has no "
            "inverse. Name a step instead"
        )
    if run.contents is None:
        raise ConfigError(f"finding a document needs the data, which is not available: {run.about}")
    if stop_slot is None:
        stop_slot = run.num_samples
    if isinstance(shard, str):
        shard = _shard_named(shard, run.contents, run.slots)
    whole = run.contents.document(shard, document_id)
    skips = run.slots.skips
    found = [
        (window, held)
        for window in _windows(run.slots, whole, stop_slot)
        if not skips.holds(window.slot) and (held := _held(window, whole))
    ]
    places = places_of(run, [window.slot for window, _ in found], ranks)
    readings = tuple(
        Reading(
            window=window,
            place=place,
            tokens=tuple(tokens for tokens, _ in held),
            places=tuple(first for _, first in held),
        )
        for (window, held), place in zip(found, places, strict=True)
    )
    removed_from = run.contents.removed.get((shard, document_id))
    before = stop_slot if removed_from is None else removed_from
    return Document(
        prefix=run.contents.catalog.prefixes[shard],
        corpus=whole.key.corpus,
        document_id=document_id,
        num_tokens=whole.count,
        stop_slot=stop_slot,
        readings=tuple(reading for reading in readings if reading.window.slot < before),
        removed_from=removed_from,
        left_out=tuple(reading for reading in readings if reading.window.slot >= before),
    )


def _shard_named(name: str, contents: Contents, history: History) -> int:
    if not contents.shards_named(name) and _was_read(history, name):
        raise ConfigError(
            f"{name}: the run has read this shard, but it is no longer in the run's list, nor "
            f"in the folder {TOKENS} beside the list. Put the shard back there, below the "
            f"folder of its corpus, or look at a step: --step. (Adding the shard to the list again "
            f"would change what the run reads next.)"
        )
    return contents.shard_named(name)


def _was_read(history: History, shard: str) -> bool:
    """Whether a phase read a shard of this corpus and name, or of this name."""
    *_, corpus, name = ("", *Path(shard).parts)
    return any(
        name in shards.names
        for phase in history.phases
        for of_corpus, shards in phase.corpora.items()
        if corpus in ("", of_corpus)
    )


def _windows(history: History, whole: Stretch, stop_slot: int) -> Iterator[Window]:
    """Windows of all phases that may hold part of a document, by slot."""
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


def _held(window: Window, whole: Stretch) -> list[tuple[tuple[int, int], int]]:
    """Ranges of a document's tokens that a window holds, and where each begins in the window."""
    found: list[tuple[tuple[int, int], int]] = []
    place = 0
    for stretch in window.stretches:
        low = max(stretch.offset, whole.offset)
        high = min(stretch.offset + stretch.count, whole.offset + whole.count)
        if stretch.key == whole.key and low < high:
            tokens = (low - whole.offset, high - whole.offset)
            found.append((tokens, place + low - stretch.offset))
        place += stretch.count
    return found


IntArray = NDArray[np.int64]


def slots_reading(
    order: SlotOrder, row: int, *, start: int, count: int, stop_slot: int
) -> list[int]:
    """Every slot of a phase whose window may hold some tokens of a row.

    Args:
        order: The order of the phase.
        row: Number of the row.
        start: Offset of the first token in the row.
        count: Number of tokens, at least 1.
        stop_slot: Only slots below this one are returned.

    Returns:
        Slots in growing order. A few may hold only the token before the first.
    """
    corpus = int(order.row_corpora[row])
    begun = order.begun
    made = int(begun.corpus_draws[corpus]) if isinstance(begun, BegunRows) else 0
    num_slots = max(0, stop_slot - order.first_slot)
    num_draws = int(order.blend.draws_before(num_slots)[corpus])

    def row_draws_before(draw: int) -> int:
        return int(order.trees.draws_before(corpus, draw)[row])

    def draws_before(slot: int) -> int:
        return int(order.blend.draws_before(slot)[corpus])

    limit = row_draws_before(made + num_draws)
    slots: list[int] = []
    for row_draw in sorted(_row_draws(order, row, start, count, limit)):
        tree_draw = bisect_right(range(made + num_draws), row_draw, key=row_draws_before) - 1
        if tree_draw < made:  # of an earlier phase
            continue
        slot = bisect_right(range(num_slots), tree_draw - made, key=draws_before) - 1
        slots.append(order.first_slot + slot)
    return slots


def _row_draws(order: SlotOrder, row: int, start: int, count: int, limit: int) -> Iterator[int]:
    """Draws of a row, below ``limit``, whose windows may hold some of its tokens."""
    made = num_remaining = next_epoch = 0
    if isinstance(order.begun, BegunRows):
        made = int(order.begun.row_draws[row])
        num_remaining = int(order.begun.num_remaining[row])
        next_epoch = int(order.begun.next_epochs[row])
        for draw in _draws_of_remainder(order, order.begun, row, start, count):
            if 0 <= draw - made < limit:
                yield draw - made
    num_windows = int(order.row_windows[row])
    num_epochs = -(-(limit + made - num_remaining) // num_windows)
    for epoch in range(max(0, num_epochs)):
        number = np.array([next_epoch + epoch])
        for index in _places_in_epoch(order, row, start, count, number):
            draw = num_remaining + epoch * num_windows + index - made
            if 0 <= draw < limit:
                yield draw


def _places_in_epoch(
    order: SlotOrder, row: int, start: int, count: int, epoch: IntArray
) -> list[int]:
    """Places in a whole epoch of the windows that hold some tokens of a row."""
    seq_len, num_windows = order.seq_len, int(order.row_windows[row])
    key = epoch_keys(order.keys[[row]], epoch)
    shift = int(epoch_shifts(key, epoch, order.left_over[[row]])[0])
    # Window w has the tokens w * L + shift to w * L + shift + L, both included. A single window
    # may wrap around, so it is always taken.
    first = (start - shift - 1) // seq_len if num_windows > 1 else 0
    last = (start + count - 1 - shift) // seq_len if num_windows > 1 else 0
    windows = np.arange(max(0, first), min(num_windows - 1, last) + 1)
    if not order.shuffled:
        return windows.tolist()
    sizes = np.full(len(windows), num_windows)
    return unpermute(windows, sizes, np.repeat(key, len(windows))).tolist()


def _draws_of_remainder(
    order: SlotOrder, begun: BegunRows, row: int, start: int, count: int
) -> list[int]:
    """Places of the windows cut from a remainder that hold some tokens."""
    if row not in begun.remainders:
        return []
    num_remaining = int(begun.num_remaining[row])
    # The last label of a window is the next token of the row, read before or not.
    low = max(0, start - 1)
    windows = {
        window
        for offset, tokens in begun.remainders[row].places_of(low, start + count - low)
        for window in range(offset // order.seq_len, (offset + tokens - 1) // order.seq_len + 1)
        if window < num_remaining
    }
    found = np.array(sorted(windows), np.int64)
    if not order.shuffled or not len(found):
        return found.tolist()
    keys = np.full(len(found), begun.remainder_keys[row])
    return unpermute(found, np.full(len(found), num_remaining), keys).tolist()
