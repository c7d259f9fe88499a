"""The blend over the course of a run: what each stretch of it reads, and what was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.progress import configured_shares
from blendtitan.order.blend import Segment
from blendtitan.pace import Paces
from blendtitan.runs.slots import Slots

FloatArray = NDArray[np.float64]

# Enough for a screen, and few enough that each holds its shares to a few percent.
_MOST_BINS = 100
_LEAST_SAMPLES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendCurve:
    """Shares over the steps of a run, of ``C`` corpora in ``B`` bins and ``S`` segments."""

    corpora: tuple[str, ...]
    """The largest share of the whole run first."""

    bin_steps: FloatArray
    """Steps before each bin, then those of the run. Shape ``(B + 1,)``."""

    bin_samples: NDArray[np.int64]
    """Samples of each bin. Shape ``(B,)``."""

    achieved: FloatArray
    """Fraction of a bin's samples that are of the corpus. Shape ``(C, B)``."""

    segment_steps: FloatArray
    """Steps before each segment. Shape ``(S,)``."""

    configured: FloatArray
    """Share that a segment asks for. Shape ``(C, S)``."""

    is_chapter: tuple[bool, ...]
    """Whether a segment begins because data or length of windows changed, too."""


def blend_curve(slots: Slots, num_samples: int) -> BlendCurve:
    """The blend of the first ``num_samples`` samples of a run, at least one."""
    segments = [s for s in slots.segments if s.first_slot < num_samples]
    edges = _edges([segment.first_slot for segment in segments], num_samples)
    names = sorted(slots.draws_before(num_samples))
    draws = np.array([_in_order(slots.draws_before(edge), names) for edge in edges.tolist()])
    samples = np.diff(edges)
    total = configured_shares(names, segments, num_samples)
    largest = np.argsort(-total, kind="stable")
    chapters = {chapter.first_slot for chapter in slots.chapters[1:]}
    return BlendCurve(
        corpora=tuple(names[i] for i in largest),
        bin_steps=np.array([steps_before(slots.paces, edge) for edge in edges.tolist()]),
        bin_samples=samples,
        achieved=(np.diff(draws, axis=0) / samples[:, None]).T[largest],
        segment_steps=np.array([steps_before(slots.paces, s.first_slot) for s in segments]),
        configured=np.array([_shares(segment, names) for segment in segments]).T[largest],
        is_chapter=tuple(segment.first_slot in chapters for segment in segments),
    )


def steps_before(paces: Paces, slot: int) -> float:
    """Steps before a slot, not whole within one."""
    pace = [pace for pace in paces if pace.consumed_samples <= slot][-1]
    return pace.step + (slot - pace.consumed_samples) / pace.global_batch_size


def _edges(firsts: Sequence[int], stop: int) -> NDArray[np.int64]:
    """Where bins begin, and the end: no bin has samples of two segments."""
    least = max(_LEAST_SAMPLES, -(-stop // _MOST_BINS))
    edges: list[int] = []
    for first, end in zip(firsts, [*firsts[1:], stop], strict=True):
        bins = max(1, (end - first) // least)
        edges += np.linspace(first, end, bins, endpoint=False).astype(np.int64).tolist()
    return np.array([*edges, stop], np.int64)


def _in_order(numbers: Mapping[str, int], names: Sequence[str]) -> list[int]:
    return [numbers[name] for name in names]


def _shares(segment: Segment, names: Sequence[str]) -> list[float]:
    total = sum(segment.weights.values())
    return [segment.weights.get(name, 0.0) / total for name in names]
