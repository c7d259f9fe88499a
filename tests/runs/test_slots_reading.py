"""The inverse of the order, against a search of every slot."""

import numpy as np
import pytest

from blendtitan.history.phases import CorpusShards, OrderSettings, Phase
from blendtitan.history.remainder import Past
from blendtitan.order.blend import Segment
from blendtitan.runs.find_document import slots_reading

TOKENS = {"a": (120, 61, 5), "b": (200,), "c": (33, 90)}
PASTS: dict[str, Past] = {
    "none": (),
    "same": ((8, 5),),
    "other": ((12, 3), (5, 4)),
    "long": ((8, 40), (3, 7)),
}


def phase_of(past: Past, *, blended: bool, first_slot: int) -> Phase:
    corpora = {
        name: CorpusShards(
            names=tuple(f"{name}_{i}" for i in range(len(tokens))),
            ids=tuple(f"{name}_{i}" for i in range(len(tokens))),
            tokens=tokens,
            weights=tuple(float(t) for t in tokens),
            places=tuple(range(len(tokens))),
            draws=4 if blended else 0,
            pasts=(past,) * (len(tokens) if blended else 1),
        )
        for name, tokens in TOKENS.items()
    }
    segments = (
        Segment(0, {"a": 0.5, "b": 0.3, "c": 0.2}),
        Segment(150, {"a": 0.9, "c": 0.1}),
        Segment(260, {"a": 0.1, "b": 0.9}),
    )
    return Phase(first_slot=first_slot, seq_len=8, segments=segments, corpora=corpora)


@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("blended", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_all_slots_that_read_a_stretch_are_found(past: str, blended: bool, shuffled: bool) -> None:
    """In segments, epochs, and remainders of unfinished epochs of other lengths."""
    first, stop = 100, 500
    settings = OrderSettings(seed=3, split="train", shuffled=shuffled, blended=blended)
    order = phase_of(PASTS[past], blended=blended, first_slot=first).order(settings)
    slots = np.arange(first, stop)
    places = order.places(slots)
    sizes = [
        size
        for tokens in TOKENS.values()
        for size in (tokens if blended else (sum(tokens),))
    ]  # fmt: skip
    read: dict[int, set[tuple[int, int]]] = {}
    for i, slot in enumerate(slots.tolist()):
        row = int(places.rows[i])
        stretches = order.stretches(places, i)
        read[slot] = {(row, (at + j) % sizes[row]) for at, n in stretches for j in range(n)}
    for row, size in enumerate(sizes):
        for start, count in [(0, 1), (0, 5), (size // 2, 3), (size - 1, 1), (1, size - 2), (17, 1)]:
            if start + count > size:
                continue
            wanted = {(row, start + j) for j in range(count)}
            expected = [slot for slot in slots.tolist() if read[slot] & wanted]
            found = slots_reading(order, row, start=start, count=count, stop_slot=stop)

            assert found == sorted(set(found))
            assert set(expected) <= set(found)
            nearby = {(row, (start + j) % size) for j in range(-1, count)}
            if size > 8:
                assert all(read[slot] & nearby for slot in found)
