"""The decision which blocks are kept on a disk: arithmetic, without files, threads or clocks.

A block is fetched whole, once, and then serves every read of it. Fetching only the windows costs
fewer bytes if the node reads little of a block, as when many nodes divide the windows of an epoch.
Since the order is known, so are the bytes of each block that are read from now on, its *demand*:

- A block is staged if its demand is at least its size / ``MOST_FETCHED``. So staging fetches at
  most ``MOST_FETCHED`` bytes per byte that is read, on any number of nodes.
- A block without demand is dropped.
- If the disk is full of blocks with a demand, another block takes the place of those with the
  smallest only if this saves bytes: if its demand, less the bytes to fetch it, is larger.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError

IntArray = NDArray[np.int64]

MOST_FETCHED = 1.15
"""Bytes fetched per byte read, at most."""

WINDOWS_PART = 16
"""One part in so many of a disk's share holds windows that are staged alone, ahead of reading."""

MOST_AHEAD = 1 << 26
"""Reads that are looked ahead. Their demand is counted in about a microsecond each."""


class Reads(NamedTuple):
    """Consecutive reads. Arrays have the shape ``(n,)``."""

    stop: int
    """``consumed_samples`` once all of them are done."""
    blocks: IntArray
    """Numbers of blocks, in the order of reading."""
    num_bytes: IntArray
    """Bytes of each that are read, by all processes of the node together."""
    windows: "Windows | None" = None
    """Where they are, to stage them alone."""


class Windows(NamedTuple):
    """The parts of windows that reads are of. Arrays have the shape ``(n,)``."""

    begins: IntArray
    """Offset in the ``.bin``."""
    lengths: IntArray
    """Bytes."""
    positions: IntArray
    """``consumed_samples`` before the read."""


def shares(num_bytes: int) -> tuple[int, int]:
    """The bytes of a disk's share for blocks, and for windows that are staged alone."""
    return num_bytes - num_bytes // WINDOWS_PART, num_bytes // WINDOWS_PART


def check_room(num_bytes: int, *, processes: int, block_bytes: int, key: str) -> None:
    """Check that a disk's share, as ``key`` sets it, has room for the processes of a node.

    Raises:
        ConfigError: It has not.
    """
    least = 2 * block_bytes * processes
    if num_bytes < least:
        raise ConfigError(
            f"{key} is {num_bytes:,}, expected at least {least:,}: two blocks of {block_bytes:,} "
            f"for each process of the node"
        )


class Planner:
    """Which blocks of a disk's share are staged.

    Args:
        sizes: Bytes of every block.
        capacity: Bytes of the share.
    """

    def __init__(self, sizes: IntArray, capacity: int) -> None:
        self.sizes = sizes
        self.capacity = capacity
        self.demand = np.zeros(len(sizes), np.int64)
        self.is_staged = np.zeros(len(sizes), np.bool_)
        self.staged_bytes = 0

    def expect(self, reads: Reads) -> None:
        """Count reads to come."""
        np.add.at(self.demand, reads.blocks, reads.num_bytes)

    def complete(self, reads: Reads) -> None:
        """Count reads that were expected as done."""
        np.subtract.at(self.demand, reads.blocks, reads.num_bytes)

    def is_worth(self, blocks: IntArray) -> NDArray[np.bool_]:
        """Whether the demand of blocks pays for fetching them."""
        return MOST_FETCHED * self.demand[blocks] >= self.sizes[blocks]

    def wanted(self, blocks: IntArray) -> IntArray:
        """Those of some blocks that are not staged and worth it, in the order of reading."""
        unique, first = np.unique(blocks, return_index=True)
        found = unique[np.argsort(first)]
        return found[~self.is_staged[found] & self.is_worth(found)]

    def fitting(self, wanted: IntArray) -> IntArray:
        """Those of some wanted blocks for which there may be room."""
        sizes = self.sizes[wanted]
        has_room = self.staged_bytes + sizes <= self.capacity
        if has_room.all():
            return wanted
        least = self.demand[self.is_staged].min(initial=np.iinfo(np.int64).max)
        return wanted[has_room | (least <= 0) | (self.demand[wanted] - sizes > least)]

    def stage(self, block: int) -> list[int] | None:
        """Stage a block: the blocks to drop for it. None: there is no room."""
        dropped = self.room_for(block)
        if dropped is None:
            return None
        for each in dropped:
            self.drop(each)
        self.is_staged[block] = True
        self.staged_bytes += int(self.sizes[block])
        return dropped

    def drop(self, block: int) -> None:
        """Forget a staged block."""
        self.is_staged[block] = False
        self.staged_bytes -= int(self.sizes[block])

    def room_for(self, block: int) -> list[int] | None:
        """The blocks that ``stage`` would drop."""
        size = int(self.sizes[block])
        excess = self.staged_bytes + size - self.capacity
        if excess <= 0:
            return []
        staged = np.flatnonzero(self.is_staged)
        demands = self.demand[staged]
        done = staged[demands <= 0]
        if self.sizes[done].sum() >= excess:
            return done.tolist()
        by_demand = staged[np.argsort(demands, kind="stable")]
        count = int(np.searchsorted(np.cumsum(self.sizes[by_demand]), excess)) + 1
        lost = by_demand[:count]
        saved = int(self.demand[block]) - size
        if count > len(staged) or saved <= self.demand[lost].sum():
            return None
        return lost.tolist()


class PredictedBytes(NamedTuple):
    """The predicted bytes that a node fetches."""

    read_bytes: int
    """Bytes of all windows."""
    staged_bytes: int
    """Bytes of the blocks that are staged."""
    window_bytes: int
    """Bytes of the other windows."""
    most_on_disk: int
    """Largest number of bytes of blocks at once."""

    @property
    def ratio(self) -> float:
        """Bytes fetched per byte read."""
        return (self.staged_bytes + self.window_bytes) / max(1, self.read_bytes)


def predicted(
    planner: Planner, reads: Iterable[Reads], *, most_ahead: int = MOST_AHEAD
) -> PredictedBytes:
    """Predict what is fetched for some reads, if every block arrives before its first read.

    ``reads`` are iterated twice.
    """
    read = staged = windows = most = 0
    for now in with_demand(planner, reads, most_ahead=most_ahead):
        for block in planner.fitting(planner.wanted(now.blocks)).tolist():
            if planner.stage(block) is not None:
                staged += int(planner.sizes[block])
        most = max(most, planner.staged_bytes)
        read += int(now.num_bytes.sum())
        windows += int(now.num_bytes[~planner.is_staged[now.blocks]].sum())
    return PredictedBytes(read, staged, windows, most)


def with_demand(
    planner: Planner, reads: Iterable[Reads], *, most_ahead: int = MOST_AHEAD
) -> Iterator[Reads]:
    """Reads, one after the other, with the demand as it is before each."""
    coming, num_ahead = iter(reads), 0
    for now in reads:
        while num_ahead < most_ahead and (new := next(coming, None)) is not None:
            planner.expect(new)
            num_ahead += len(new.blocks)
        yield now
        planner.complete(now)
        num_ahead -= len(now.blocks)
