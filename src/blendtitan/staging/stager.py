"""The thread that stages blocks and windows ahead of reading."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.errors import ShardError
from blendtitan.order.slots import IntArray
from blendtitan.staging.blocks import MOST_READS, Blocks, NodeReads
from blendtitan.staging.fetching import EndingError, Fetched, Fetching
from blendtitan.staging.files import Stage
from blendtitan.staging.folder import StageFolder
from blendtitan.staging.planner import MOST_AHEAD, Planner, Reads, shares
from blendtitan.staging.windows import StagedWindows, Window

if TYPE_CHECKING:
    from blendtitan.loader import DataLoader

_LOOK_SECONDS = 0.1
_MICRO_BATCHES = 2
"""Micro batches between what is prefetched and the first window that is staged alone."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _MovedError(Exception):
    """The loader reads other samples than expected, or staging shall end."""


@dataclass(slots=True)
class Stager:
    """Stages the blocks of one process of a node. ``run`` is called in a thread."""

    loader: "DataLoader"
    stage: Stage
    folder: StageFolder
    index: int
    """Of this process among those of its node."""
    dp_ranks: tuple[int, ...]
    """The data-parallel rank of each process of the node."""
    num_samples: int
    """Samples of the whole run."""
    num_bytes: int
    """Bytes of the disk for this process."""
    blocks: Blocks
    ended: threading.Event = field(default_factory=threading.Event)
    """Set to end the thread."""
    planner: Planner = field(init=False)
    windows: StagedWindows = field(init=False)
    _leftover_bytes: int = 0
    _alone_from: int = 0
    """Position of the first read that is staged alone."""
    _coming: Iterator[Reads] = field(default_factory=lambda: iter(()))
    _num_ahead: int = 0
    _reading: Iterator[Reads] = field(default_factory=lambda: iter(()))
    _next: Reads | None = None
    """The first reads that may not be done."""

    def __post_init__(self) -> None:
        for_blocks, for_windows = shares(self.num_bytes)
        self.planner = Planner(self.blocks.sizes, for_blocks)
        self.windows = StagedWindows(for_windows)

    def run(self) -> None:
        """Stage until the run ends, or the disk fails."""
        dataset = self.loader.dataset
        assert isinstance(dataset, BlendedDataset)
        try:
            leftovers = self.folder.leftovers()
            self._leftover_bytes = sum(leftovers.values())
            where = self.stage, self.folder, self.blocks, dataset.rows.open_bin
            with Fetching(*where, leftovers) as fetching, suppress(EndingError):
                while not self.ended.is_set() and not self.is_done:
                    with suppress(_MovedError):
                        self._follow(fetching)
        except OSError as error:
            path = self.folder.path
            self.stage.warn(f"{path}: cannot be written ({error.strerror}), so staging ends")
        self.ended.set()

    @property
    def is_done(self) -> bool:
        """Whether the run has read all of its samples."""
        return self.loader.consumed_samples >= self.num_samples

    def _follow(self, fetching: Fetching) -> None:
        """Stage what the loader reads from its position on, to the end of the run.

        Raises:
            OSError: The disk cannot be written to.
        """
        version, dataset = self.loader.version, self.loader.dataset
        assert isinstance(dataset, BlendedDataset)
        coming = NodeReads(
            dataset=dataset,
            course=self.loader.course,
            dp_ranks=self.dp_ranks,
            start=self.loader.consumed_samples,
            stop=self.num_samples,
            blocks=self.blocks,
            owner=self.index,
            num_owners=len(self.dp_ranks),
            most_reads=self._most_reads,
        )
        self._note(fetching.wait(for_all=True))
        self._drop_windows(fetching, self.num_samples)
        self._alone_from = 0
        self.planner.demand[:] = 0
        self._coming, self._reading, self._num_ahead = iter(coming), iter(coming), 0
        self._next = next(self._reading, None)
        for reads in coming:
            self._look_ahead(fetching, version)
            while not self._stage(reads, fetching):
                self._wait()
                self._look_ahead(fetching, version)
        self._note(fetching.wait(for_all=True))
        while not self.is_done:
            self._wait()
            self._look_ahead(fetching, version)

    @property
    def _most_reads(self) -> int:
        """A small part of what the disk holds, because blocks are dropped after all of them."""
        window_bytes = self.loader.dataset.config.seq_length * int(self.blocks.token_bytes.max())
        node_bytes = self.planner.capacity * len(self.dp_ranks)
        return min(MOST_READS, max(1, node_bytes // (8 * window_bytes)))

    def _wait(self) -> None:
        """Wait until the loader has read something."""
        consumed = self.loader.consumed_samples
        while self.loader.consumed_samples == consumed and not self.ended.is_set():
            self.ended.wait(_LOOK_SECONDS)

    def _look_ahead(self, fetching: Fetching, version: int) -> None:
        """Update the demand: leave out what has been read, and add what comes into sight."""
        if self.ended.is_set() or self.loader.version != version:
            raise _MovedError
        consumed = self.loader.consumed_samples
        # Other ranks may be a micro batch behind.
        self._drop_windows(fetching, consumed - self.loader.course.stride)
        while self._next is not None and self._next.stop <= consumed:
            self.planner.complete(self._next)
            self._num_ahead -= len(self._next.blocks)
            self._next = next(self._reading, None)
        while self._num_ahead < MOST_AHEAD and not self.ended.is_set():
            began = time.perf_counter()
            new = next(self._coming, None)
            if new is None or self.loader.version != version:
                return
            self.planner.expect(new)
            self._num_ahead += len(new.blocks)
            # Training waits for Python's lock meanwhile.
            self.ended.wait(time.perf_counter() - began)

    def _drop_windows(self, fetching: Fetching, position: int) -> None:
        """Delete the windows that are read before a position."""
        for window, num_bytes, is_last in self.windows.done(position):
            self.planner.demand[window.block] += num_bytes  # `complete` subtracts it
            if is_last:
                fetching.drop_window(window)

    def _stage(self, reads: Reads, fetching: Fetching) -> bool:
        """Stage some reads. False: there is no room before others are done."""
        wanted = self.planner.wanted(reads.blocks)
        for block in self.planner.fitting(wanted).tolist():
            self._note(fetching.wait())
            if self.ended.is_set() or self.loader.consumed_samples >= reads.stop:
                return True
            if fetching.is_fetching(self.planner.room_for(block) or []):
                self._note(fetching.wait(for_all=True))
            dropped = self.planner.stage(block)
            if dropped is not None:
                for each in dropped:
                    fetching.drop_block(each)
                self._drop_leftovers(fetching)
                fetching.block(block)
        rest = np.flatnonzero(~self.planner.is_staged[reads.blocks])
        return self._stage_windows(reads, rest, fetching)

    def _stage_windows(self, reads: Reads, rest: IntArray, fetching: Fetching) -> bool:
        """Stage those of some reads alone that are not about to be read; see ``_stage``."""
        assert reads.windows is not None
        begins, lengths, positions = reads.windows
        lead = (self.loader.prefetch + _MICRO_BATCHES) * self.loader.course.stride
        for i in rest.tolist():
            window = Window(int(reads.blocks[i]), int(begins[i]), int(lengths[i]))
            position = int(positions[i])
            if self.windows.expects(window, position):
                continue
            consumed = self.loader.consumed_samples
            if position < consumed + lead:  # this thread is late: begin well ahead of reading
                self._alone_from = consumed + 2 * lead
            if position < self._alone_from or self.ended.is_set():
                continue
            if not self.windows.has_room(window):
                return False
            num_bytes = int(reads.num_bytes[i])
            self.planner.demand[window.block] -= num_bytes
            if self.windows.add(window, position, num_bytes):
                self._note(fetching.wait())
                fetching.window(window)
        return True

    def _note(self, fetched: list[Fetched]) -> None:
        """Note what was fetched.

        Raises:
            OSError: The disk cannot be written to, and is not merely full.
        """
        for block, error, leftover in fetched:
            self._leftover_bytes -= leftover
            if error is None:
                continue
            if block is not None:
                self.planner.drop(block)
            if isinstance(error, ShardError):
                continue  # whoever reads it reports the error
            if error.errno not in _FULL:
                raise error
            self.planner.capacity = self.planner.staged_bytes
            self.windows.capacity = 0
            self.stage.warn(f"{self.folder.path}: the disk is full, so it gets no more blocks")

    def _drop_leftovers(self, fetching: Fetching) -> None:
        """Delete blocks of an earlier run that there is no room for."""
        excess = self.planner.staged_bytes + self._leftover_bytes - self.planner.capacity
        while excess > 0 and (num_bytes := fetching.drop_leftover()):
            self._leftover_bytes -= num_bytes
            excess -= num_bytes
