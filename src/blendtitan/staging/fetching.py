"""Fetches blocks and windows in threads, and writes them to the disk."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from blendtitan.errors import ShardError
from blendtitan.staging.blocks import Blocks
from blendtitan.staging.files import Stage, window_name
from blendtitan.staging.folder import StageFolder
from blendtitan.staging.windows import Window
from blendtitan.storage.reader import OpenFile

_BLOCKS = 4
"""Blocks that a process fetches at the same time."""
_REQUESTS = 32
"""Blocks and windows."""


class EndingError(Exception):
    """The interpreter is shutting down."""


class Fetched(NamedTuple):
    """The result of fetching a block or a window."""

    block: int | None
    """None: it was a window."""
    error: OSError | ShardError | None = None
    """Of the disk, or of the shard."""
    leftover: int = 0
    """Bytes of the file of an earlier run in its place."""


@dataclass(slots=True)
class Fetching:
    """The requests of a process. Its methods are called in one thread."""

    stage: Stage
    folder: StageFolder
    blocks: Blocks
    open_bin: Callable[[int], OpenFile]
    leftovers: dict[tuple[str, str], int]
    """Bytes of the blocks that an earlier run left, by the folder of their shard and their name."""
    _names: dict[int, str] = field(default_factory=dict)
    """The folder of each shard."""
    _pending: dict[Future[Fetched], int | Window] = field(default_factory=dict)
    _unwanted: set[Window] = field(default_factory=set)
    """Windows to delete once they are there."""
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_REQUESTS, "blendtitan-stage")
    )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def is_fetching(self, blocks: list[int]) -> bool:
        """Whether one of these blocks is being fetched."""
        return not set(blocks).isdisjoint(self._pending.values())

    def wait(self, *, for_all: bool = False) -> list[Fetched]:
        """Wait until another block may be requested, or ``for_all``. Return what was fetched."""
        found: list[Fetched] = []
        while self._pending:
            done, rest = wait(self._pending, 0)
            blocks = sum(isinstance(self._pending[each], int) for each in rest)
            is_full = for_all or blocks >= _BLOCKS or len(rest) >= _REQUESTS
            if not done and is_full:
                done, _ = wait(self._pending, None, FIRST_COMPLETED)
            for each in done:
                what = self._pending.pop(each)
                found.append(each.result())
                if what in self._unwanted:
                    assert isinstance(what, Window)
                    self._unwanted.remove(what)
                    self.drop_window(what)
            if not done:
                break
        return found

    def block(self, block: int) -> None:
        """Request a block."""
        self._submit(self._fetch_block, block)

    def window(self, window: Window) -> None:
        """Request a window."""
        self._submit(self._fetch_window, window)

    def drop_block(self, block: int) -> None:
        """Delete a block."""
        shard, number = self.blocks.place(block)
        self.folder.drop(self._names[shard], str(number))

    def drop_window(self, window: Window) -> None:
        """Delete a window, now or once it is there."""
        if window in self._pending.values():
            self._unwanted.add(window)
            return
        shard, _ = self.blocks.place(window.block)
        if shard in self._names:  # else the shard cannot be read
            self.folder.drop(self._names[shard], window_name(window.begin, window.length))

    def drop_leftover(self) -> int:
        """Delete a block of an earlier run that was not taken over; its bytes, 0: there is none."""
        try:
            names, num_bytes = self.leftovers.popitem()
        except KeyError:  # not asked for before: another thread may take the last one over
            return 0
        self.folder.drop(*names)
        return num_bytes

    def _submit(self, fetch: Callable[[Any], Fetched], what: int | Window) -> None:
        try:
            self._pending[self._pool.submit(fetch, what)] = what
        except RuntimeError as error:
            raise EndingError from error

    def _fetch_block(self, block: int) -> Fetched:
        shard, number = self.blocks.place(block)
        try:
            file: Any = self.open_bin(shard)
            staged = file.staged
            self._names[shard] = staged.name
            leftover = self.leftovers.pop((staged.name, str(number)), 0)
            size = staged.size(number)
            if leftover != size:
                data = file.fetch_staged(staged.start(number), size)
                self.folder.keep(staged.name, str(number), data)
                self.stage.count(blocks=size)
        except (OSError, ShardError) as error:
            return Fetched(block, error)
        return Fetched(block, None, leftover)

    def _fetch_window(self, window: Window) -> Fetched:
        shard, number = self.blocks.place(window.block)
        try:
            file: Any = self.open_bin(shard)
            self._names[shard] = name = file.staged.name
            if self.leftovers.get((name, str(number))) == file.staged.size(number):
                return Fetched(None)  # it is read from that block
            data = file.fetch_staged(window.begin, window.length)
            self.folder.keep(name, window_name(window.begin, window.length), data)
            self.stage.count(windows=len(data))
        except (OSError, ShardError) as error:
            return Fetched(None, error)
        return Fetched(None)
