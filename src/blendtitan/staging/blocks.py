"""Blocks of a fixed size of the ``.bin`` files of a catalog, and the reads of them to come."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.files import url_of
from blendtitan.order.slots import Course
from blendtitan.staging.planner import Reads, Windows
from blendtitan.storage.catalog import Catalog

IntArray = NDArray[np.int64]
Numbers = TypeVar("Numbers", int, IntArray)

BLOCK_BYTES = 1 << 20

MOST_READS = 1024
"""Reads that are planned together: enough to spread the cost of the NumPy calls."""


def salt_of(path: str) -> int:
    """A number of a ``.bin``, by which the blocks of many small files are divided evenly."""
    return zlib.crc32((url_of(path) or path).encode())


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of all shards, numbered through. Columns of shards have the shape ``(S,)``."""

    firsts: IntArray
    """Number of the first block of each shard; then the number of all blocks. ``(S + 1,)``"""
    file_bytes: IntArray
    """Size of each ``.bin``."""
    token_bytes: IntArray
    salts: IntArray
    block_bytes: int
    """Bytes of every block except the last of a shard."""

    @classmethod
    def of_catalog(cls, catalog: Catalog, *, block_bytes: int = BLOCK_BYTES) -> Self:
        """The blocks of the shards of a catalog."""
        shards = range(len(catalog.prefixes))
        token_bytes = np.array([catalog.dtype(shard).itemsize for shard in shards], np.int64)
        file_bytes = catalog.token_cuts[:, 3] * token_bytes
        counts = -(-file_bytes // block_bytes)
        return cls(
            firsts=np.concatenate([[0], np.cumsum(counts)]),
            file_bytes=file_bytes,
            token_bytes=token_bytes,
            salts=np.array([salt_of(f"{prefix}.bin") for prefix in catalog.prefixes], np.int64),
            block_bytes=block_bytes,
        )

    @property
    def sizes(self) -> IntArray:
        """Bytes of each block."""
        sizes = np.full(self.firsts[-1], self.block_bytes, np.int64)
        sizes[self.firsts[1:] - 1] = (self.file_bytes - 1) % self.block_bytes + 1
        return sizes

    def place(self, block: int) -> tuple[int, int]:
        """The shard of a block, and the block's number in it."""
        shard = int(np.searchsorted(self.firsts, block, side="right")) - 1
        return shard, block - int(self.firsts[shard])

    def owners(self, blocks: IntArray, count: int) -> IntArray:
        """Which of ``count`` processes stages each block."""
        shards = np.searchsorted(self.firsts, blocks, side="right") - 1
        return owner_of(self.salts[shards], blocks - self.firsts[shards], count)

    def of_windows(
        self, shards: IntArray, at_bytes: IntArray, tokens: int
    ) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """The blocks of contiguous windows, in order.

        Returns:
            Number of each block, where in the ``.bin`` reading it begins, bytes of it that are
            read, and the index of the window.
        """
        size = self.block_bytes
        ends = at_bytes + tokens * self.token_bytes[shards]
        first, last = at_bytes // size, (ends - 1) // size
        counts = last - first + 1
        windows = np.repeat(np.arange(len(shards)), counts)
        numbers = first[windows] + np.arange(len(windows))
        numbers -= np.repeat(np.cumsum(counts) - counts, counts)
        begins = np.maximum(at_bytes[windows], numbers * size)
        stops = np.minimum(ends[windows], (numbers + 1) * size)
        return self.firsts[shards[windows]] + numbers, begins, stops - begins, windows


def owner_of(salt: Numbers, number: Numbers, count: int) -> Numbers:
    """Which of ``count`` processes stages a block of a file with this salt."""
    return (salt + number) % count


@dataclass(frozen=True, slots=True)
class NodeReads:
    """The reads of a node from a position of the loader on. Iterate it as often as needed."""

    dataset: BlendedDataset
    course: Course
    """Of any rank."""
    dp_ranks: Sequence[int]
    """The data-parallel rank of each process of the node."""
    start: int
    """``consumed_samples`` before the first read."""
    stop: int
    """Reads that begin at ``stop`` or later are not made."""
    blocks: Blocks
    owner: int = 0
    """Only blocks of this owner of ``num_owners`` are listed."""
    num_owners: int = 1
    most_reads: int = MOST_READS

    def __iter__(self) -> Iterator[Reads]:
        ranks, counts = np.unique(self.dp_ranks, return_counts=True)
        courses = [replace(self.course, dp_rank=int(rank)) for rank in ranks]
        most = max(1, self.most_reads // (len(ranks) * self.course.micro_batch))
        at = self.start
        while at < self.stop:
            block, index = self.course.block(at)
            slots = np.stack([course.slots(block) for course in courses], axis=1)
            while at < self.stop and index < len(slots):
                first, positions = index, [at]
                while positions[-1] < self.stop and index < min(first + most, len(slots)):
                    positions.append(self.course.after(positions[-1]))
                    index += 1
                yield self._reads(slots[first:index], counts, np.array(positions))
                at = positions[-1]

    def _reads(self, slots: IntArray, readers: IntArray, positions: IntArray) -> Reads:
        """The reads of slots of the shape ``(micro batches, ranks, micro batch)``.

        ``readers`` are the processes of each rank; ``positions`` are before each micro batch, and
        after the last.
        """
        plan = self.dataset.plan(np.maximum(slots.ravel(), self.dataset.first_slot))
        whole = np.flatnonzero(plan.at_bytes >= 0)  # other windows are read directly
        blocks, begins, lengths, windows = self.blocks.of_windows(
            plan.shards[whole], plan.at_bytes[whole], self.dataset.config.seq_length + 1
        )
        batches, ranks, _ = np.unravel_index(whole[windows], slots.shape)
        columns = [blocks, lengths * readers[ranks], begins, lengths, positions[batches]]
        if self.num_owners > 1:
            own = self.blocks.owners(blocks, self.num_owners) == self.owner
            columns = [column[own] for column in columns]
        return Reads(int(positions[-1]), *columns[:2], Windows(*columns[2:]))
