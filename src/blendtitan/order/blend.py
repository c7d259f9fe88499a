"""Blending: which corpus has a slot, and which of its draws that is.

A blend of ``n`` weights is a binary tree, built as in Huffman's code. A node with children of
weights ``a <= b`` sends ``floor(k * p + 1/2)`` of its first ``k`` slots to the lighter child,
``p = a / (a + b)``, and the others to the heavier one. So the leaf of any slot, and how many
slots of that leaf come before it, are found in a few multiplications on the way down: there is
no table, no search and no horizon, and no prefix is ever as much as two slots away from the
shares.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


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
        """How many of the first ``slot`` slots of a tree go to each leaf.

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
