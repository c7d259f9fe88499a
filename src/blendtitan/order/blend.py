"""Blending: the corpus of each slot, and its draw.

A blend of ``n`` weights is a binary tree, built as in Huffman's code. A node with children of
weights ``a <= b`` sends ``floor(k * p + 1/2)`` of its first ``k`` slots to the lighter child, with
``p = a / (a + b)``, and the rest to the heavier one. The leaf of any slot, and the number of its
slots before that one, are found with a few multiplications on the way down: there is no table, no
search and no horizon, and no corpus is ever two slots away from its share.

A segment is a stretch of the global order with constant shares. Each segment counts its slots from
0 in a tree of its own, while the draws of each corpus continue from segment to segment.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """The weights from one slot of the global order on."""

    first_slot: int
    """Slot at which the segment begins; the first segment begins at 0."""

    weights: Mapping[str, float]
    """Weight of each corpus, above 0. A corpus that is not named is not drawn."""


def total_weight(weights: Iterable[float]) -> float:
    """Sum of weights, added from left to right.

    ``sum`` rounds differently since Python 3.12, and shares determine the corpus of each slot.
    """
    total = 0.0
    for weight in weights:
        total += weight
    return total


def shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """Share of each corpus, summing to 1."""
    total = total_weight(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@dataclass(frozen=True, slots=True)
class BlendTrees:
    """Several blends side by side. Nodes are numbered; leaf ``i`` of all trees is node ``i``."""

    num_leaves: int
    """Leaves of all trees together."""

    roots: IntArray
    """Node at which each tree begins. Shape ``(num_trees,)``."""

    light: IntArray
    """Lighter child of each inner node, by node number less ``num_leaves``."""

    heavy: IntArray
    """Heavier child of each inner node."""

    p: NDArray[np.float64]
    """Share of the lighter child in its node, at most 1/2."""

    @classmethod
    def build(cls, weights: Sequence[Sequence[float]]) -> Self:
        """One tree for each list of weights; leaves are numbered in the order given.

        Weights are finite and above 0. Equally light nodes are joined in the order of their
        numbers, a joined node having the next number of its tree.
        """
        num_leaves = sum(len(tree) for tree in weights)
        light: list[int] = []
        heavy: list[int] = []
        p: list[float] = []
        roots: list[int] = []
        first_leaf = 0
        for tree in weights:
            # (weight, number in the tree, node): the number decides between equal weights.
            heap = [(weight, i, first_leaf + i) for i, weight in enumerate(tree)]
            heapq.heapify(heap)
            for number in range(len(tree), 2 * len(tree) - 1):
                a, _, a_node = heapq.heappop(heap)
                b, _, b_node = heapq.heappop(heap)
                heapq.heappush(heap, (a + b, number, num_leaves + len(light)))
                light.append(a_node)
                heavy.append(b_node)
                p.append(a / (a + b))
            roots.append(heap[0][2])
            first_leaf += len(tree)
        return cls(
            num_leaves,
            np.array(roots, np.int64),
            np.array(light, np.int64),
            np.array(heavy, np.int64),
            np.array(p, np.float64),
        )

    def leaves(self, trees: IntArray, slots: IntArray) -> tuple[IntArray, IntArray]:
        """The leaf that has each slot of its tree, and that leaf's draw.

        Args:
            trees: Number of the tree. Shape ``(n,)``.
            slots: Slot in that tree, from 0. Shape ``(n,)``.

        Returns:
            ``(leaf, draw)``, each of shape ``(n,)``: the slot is draw ``draw`` of ``leaf``.
        """
        node, draw = self.roots[trees], slots.copy()
        inner = np.flatnonzero(node >= self.num_leaves)
        while len(inner):
            at = node[inner] - self.num_leaves
            k, p = draw[inner], self.p[at]
            to_light = _slots_of_light(k, p)
            goes_light = _slots_of_light(k + 1, p) > to_light
            draw[inner] = np.where(goes_light, to_light, k - to_light)
            below = np.where(goes_light, self.light[at], self.heavy[at])
            node[inner] = below
            inner = inner[below >= self.num_leaves]
        return node, draw

    def draws_before(self, tree: int, slot: int) -> IntArray:
        """Number of slots of each leaf of a tree before ``slot``.

        Shape ``(num_leaves,)``; leaves of other trees have 0.
        """
        draws = np.zeros(self.num_leaves, np.int64)
        nodes, slots = self.roots[[tree]], np.array([slot], np.int64)
        while len(nodes):
            leaf = nodes < self.num_leaves
            draws[nodes[leaf]] = slots[leaf]
            at, k = nodes[~leaf] - self.num_leaves, slots[~leaf]
            to_light = _slots_of_light(k, self.p[at])
            nodes = np.concatenate([self.light[at], self.heavy[at]])
            slots = np.concatenate([to_light, k - to_light])
        return draws


def _slots_of_light(k: IntArray, p: NDArray[np.float64]) -> IntArray:
    """``floor(k * p + 1/2)``: slots of the lighter child among the first ``k`` of its node."""
    return np.floor(k * p + 0.5).astype(np.int64)


@dataclass(frozen=True, slots=True)
class BlendOrder:
    """The corpus and draw of each slot, over all segments."""

    corpora: tuple[str, ...]
    """Names of all corpora of all segments, sorted; a corpus's number is its place here."""

    first_slots: IntArray
    """First slot of each segment. Shape ``(num_segments,)``."""

    trees: BlendTrees
    """One tree for each segment."""

    corpus_of_leaf: IntArray
    """Number of the corpus of each leaf. Shape ``(num_leaves,)``."""

    draws_before_leaf: IntArray
    """Draws of the leaf's corpus in all earlier segments. Shape ``(num_leaves,)``."""

    @classmethod
    def build(cls, segments: Sequence[Segment], corpora: Iterable[str] = ()) -> Self:
        """Order of ``segments``, the first of which begins at slot 0.

        ``corpora`` are numbered even if no segment names them.
        """
        assert segments
        assert segments[0].first_slot == 0
        named = {name for segment in segments for name in segment.weights}
        corpora = tuple(sorted(named.union(corpora)))
        names = [sorted(segment.weights) for segment in segments]
        trees = BlendTrees.build(
            [[s.weights[name] for name in n] for s, n in zip(segments, names, strict=True)]
        )
        number = {name: i for i, name in enumerate(corpora)}
        corpus_of_leaf = np.array([number[name] for n in names for name in n], np.int64)
        first_slots = np.array([segment.first_slot for segment in segments], np.int64)
        assert np.all(np.diff(first_slots) > 0)
        draws = np.zeros(len(corpora), np.int64)
        draws_before_leaf = np.zeros(len(corpus_of_leaf), np.int64)
        leaf = 0
        for i, n in enumerate(names):
            own = slice(leaf, leaf + len(n))
            draws_before_leaf[own] = draws[corpus_of_leaf[own]]
            if i + 1 < len(segments):
                slots = int(first_slots[i + 1] - first_slots[i])
                draws[corpus_of_leaf[own]] += trees.draws_before(i, slots)[own]
            leaf = own.stop
        return cls(corpora, first_slots, trees, corpus_of_leaf, draws_before_leaf)

    def draws(self, slots: IntArray) -> tuple[IntArray, IntArray]:
        """``(corpus, draw)`` of each slot of the global order, each of the shape of ``slots``."""
        segment = np.searchsorted(self.first_slots, slots, side="right") - 1
        leaf, draw = self.trees.leaves(segment, slots - self.first_slots[segment])
        return self.corpus_of_leaf[leaf], draw + self.draws_before_leaf[leaf]

    def draws_before(self, slot: int) -> IntArray:
        """Number of slots of each corpus before a slot. Shape ``(num_corpora,)``."""
        draws = np.zeros(len(self.corpora), np.int64)
        stops = [*self.first_slots[1:].tolist(), slot]
        for segment, (first, stop) in enumerate(zip(self.first_slots.tolist(), stops, strict=True)):
            slots = min(slot, stop) - first
            if slots > 0:
                np.add.at(draws, self.corpus_of_leaf, self.trees.draws_before(segment, slots))
        return draws
