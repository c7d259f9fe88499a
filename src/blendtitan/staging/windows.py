"""Windows that are staged alone: fetched ahead of reading, and dropped once they are read."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Window(NamedTuple):
    """A part of a window within a block."""

    block: int
    begin: int
    """Offset in the ``.bin``."""
    length: int


class _Read(NamedTuple):
    position: int
    window: Window
    num_bytes: int


@dataclass(slots=True)
class StagedWindows:
    """The windows on a disk, in the order of reading."""

    capacity: int
    num_bytes: int = 0
    _last: dict[Window, int] = field(default_factory=dict)
    """Position of the last known read of each."""
    _reads: deque[_Read] = field(default_factory=deque)

    def has_room(self, window: Window) -> bool:
        """Whether it is staged, or fits."""
        return window in self._last or self.num_bytes + window.length <= self.capacity

    def expects(self, window: Window, position: int) -> bool:
        """Whether this read was added."""
        return self._last.get(window, -1) >= position

    def add(self, window: Window, position: int, num_bytes: int) -> bool:
        """Add a read of ``num_bytes`` by all processes. True: the window must be fetched for it."""
        self._reads.append(_Read(position, window, num_bytes))
        is_new = window not in self._last
        self._last[window] = position
        if is_new:
            self.num_bytes += window.length
        return is_new

    def done(self, position: int) -> Iterator[tuple[Window, int, bool]]:
        """The windows that are read before a position, their bytes, and whether to drop them."""
        while self._reads and self._reads[0].position < position:
            read, window, num_bytes = self._reads.popleft()
            is_last = self._last[window] == read
            if is_last:
                del self._last[window]
                self.num_bytes -= window.length
            yield window, num_bytes, is_last
