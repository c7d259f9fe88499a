"""The thread that stages blocks ahead of reading."""

import errno
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from blendtitan.dataset.blended import BlendedDataset
from blendtitan.errors import ShardError
from blendtitan.loader import DataLoader
from blendtitan.staging import blocks
from blendtitan.staging.files import Stage
from blendtitan.staging.folder import StageFolder
from blendtitan.staging.planner import MOST_AHEAD, Planner, Reads
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_REQUESTS = 4
"""Blocks that a process fetches at the same time."""
_LOOK_SECONDS = 0.1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _MovedError(Exception):
    """The loader reads other samples than expected, or staging shall end."""


@dataclass(slots=True)
class Stager:
    """Stages the blocks of one process of a node. ``run`` is called in a thread."""

    loader: DataLoader
    stage: Stage
    folder: StageFolder
    index: int
    """Of this process among those of its node."""
    dp_ranks: tuple[int, ...]
    """The data-parallel rank of each process of the node."""
    num_samples: int
    """Samples of the whole run."""
    planner: Planner
    blocks: blocks.Blocks
    ended: threading.Event = field(default_factory=threading.Event)
    """Set to end the thread."""
    _fetching: dict[Future["_Fetched"], int] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)
    """The folder of each shard's blocks."""
    _leftovers: dict[tuple[str, int], int] = field(default_factory=dict)
    """Bytes of the blocks that an earlier run left, by folder and number."""
    _leftover_bytes: int = 0
    _coming: Iterator[Reads] = field(default_factory=lambda: iter(()))
    _num_ahead: int = 0
    _reading: Iterator[Reads] = field(default_factory=lambda: iter(()))
    _next: Reads | None = None
    """The first reads that may not be done."""

    def run(self) -> None:
        """Stage until the run ends, or the disk fails."""
        with ThreadPoolExecutor(_REQUESTS, "blendtitan-stage") as pool:
            try:
                self._leftovers = self.folder.leftovers()
                self._leftover_bytes = sum(self._leftovers.values())
                while not self.ended.is_set() and not self.is_done:
                    with suppress(_MovedError):
                        self._follow(pool)
            except OSError as error:
                path = self.folder.path
                self.stage.warn(f"{path}: cannot be written ({error.strerror}), so staging ends")
            self.ended.set()

    @property
    def is_done(self) -> bool:
        """Whether the run has read all of its samples."""
        return self.loader.consumed_samples >= self.num_samples

    def _follow(self, pool: ThreadPoolExecutor) -> None:
        """Stage what the loader reads from its position on, to the end of the run.

        Raises:
            OSError: The disk cannot be written to.
        """
        version, dataset = self.loader.version, self.loader.dataset
        assert isinstance(dataset, BlendedDataset)
        future = blocks.Future(
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
        self.planner.demand[:] = 0
        self._coming, self._reading, self._num_ahead = iter(future), iter(future), 0
        self._next = next(self._reading, None)
        for reads in future:
            self._look_ahead(version)
            while not self._stage(reads, pool):
                self._look_ahead(version)
        self._collect(all_of_them=True)
        while not self.is_done:  # for reads that begin anew
            self._look_ahead(version)
            self.ended.wait(_LOOK_SECONDS)

    @property
    def _most_reads(self) -> int:
        """A small part of what the disk holds, because blocks are dropped after all of them."""
        window_bytes = self.loader.dataset.config.seq_length * int(self.blocks.token_bytes.max())
        node_bytes = self.planner.capacity * len(self.dp_ranks)
        return min(blocks.MOST_READS, max(1, node_bytes // (8 * window_bytes)))

    def _look_ahead(self, version: int) -> None:
        """Update the demand: leave out what has been read, and add what comes into sight."""
        consumed = self.loader.consumed_samples
        while self._next is not None and self._next.stop <= consumed:
            self.planner.complete(self._next)
            self._num_ahead -= len(self._next.blocks)
            self._next = next(self._reading, None)
        while self._num_ahead < MOST_AHEAD:
            began = time.perf_counter()
            new = next(self._coming, None)
            self._check(version)
            if new is None:
                return
            self.planner.expect(new)
            self._num_ahead += len(new.blocks)
            # Training waits for Python's lock meanwhile.
            self.ended.wait(time.perf_counter() - began)

    def _check(self, version: int) -> None:
        if self.ended.is_set() or self.loader.version != version:
            raise _MovedError

    def _stage(self, reads: Reads, pool: ThreadPoolExecutor) -> bool:
        """Stage blocks for some reads. False: there is no room before others have been read."""
        consumed = self.loader.consumed_samples
        if consumed >= reads.stop:
            return True  # too late
        wanted = self.planner.wanted(reads.blocks)
        for block in self.planner.fitting(wanted).tolist():
            self._collect()
            if self.ended.is_set() or self.loader.consumed_samples >= reads.stop:
                return True
            if not {*self._fetching.values()}.isdisjoint(self.planner.room_for(block) or ()):
                self._collect(all_of_them=True)
            dropped = self.planner.stage(block)
            if dropped is not None:
                self._delete(dropped)
                self._fetching[self._submitted(pool, block)] = block
        if self.planner.is_staged[wanted].all():
            return True
        while self.loader.consumed_samples == consumed and not self.ended.is_set():
            self.ended.wait(_LOOK_SECONDS)
        return False

    def _submitted(self, pool: ThreadPoolExecutor, block: int) -> Future["_Fetched"]:
        try:
            return pool.submit(self._fetch, block)
        except RuntimeError as error:  # the interpreter is shutting down
            self.ended.set()
            raise _MovedError from error

    def _collect(self, *, all_of_them: bool = False) -> None:
        """Wait until another block may be fetched, and note what was fetched."""
        while self._fetching:
            done, rest = wait(self._fetching, 0, FIRST_COMPLETED)
            if not done and (all_of_them or len(rest) >= _REQUESTS):
                done, _ = wait(self._fetching, None, FIRST_COMPLETED)
            for each in done:
                self._note(self._fetching.pop(each), each)
            if not done:
                return

    def _note(self, block: int, fetched: Future["_Fetched"]) -> None:
        try:
            error, taken_over = fetched.result()
        except ShardError:
            self.planner.drop(block)  # whoever reads it reports the error
            return
        self._leftover_bytes -= taken_over
        if error is None:
            return
        self.planner.drop(block)
        if error.errno not in _FULL:
            raise error
        self.planner.capacity = self.planner.staged_bytes
        self.stage.warn(f"{self.folder.path}: the disk is full, so it gets no more blocks")

    def _fetch(self, block: int) -> "_Fetched":
        """Fetch a block, unless an earlier run did."""
        shard, number = self.blocks.place(block)
        dataset = self.loader.dataset
        assert isinstance(dataset, BlendedDataset)
        file: Any = dataset.rows.open_bin(shard)
        self._names[shard] = name = file.staged.name
        found = self._leftovers.pop((name, number), 0)
        if found == file.staged.size(number):
            return _Fetched(None, found)
        data = file.fetch_block(number)
        try:
            self.folder.keep(name, number, data)
        except OSError as error:
            return _Fetched(error, found)
        self.stage.count(staged=len(data))
        return _Fetched(None, found)

    def _delete(self, dropped: list[int]) -> None:
        """Delete blocks, and those of an earlier run that there is no room for."""
        for block in dropped:
            shard, number = self.blocks.place(block)
            self.folder.drop(self._names[shard], number)
        excess = self.planner.staged_bytes + self._leftover_bytes - self.planner.capacity
        while excess > 0 and self._leftovers:
            (name, number), num_bytes = self._leftovers.popitem()
            self.folder.drop(name, number)
            self._leftover_bytes -= num_bytes
            excess -= num_bytes


class _Fetched(NamedTuple):
    error: OSError | None
    """Of the disk."""
    taken_over: int
    """Bytes that an earlier run had fetched."""
