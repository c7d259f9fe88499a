"""JSON values that are not one per line: arrays, values over several lines, several on a line.

Values are separated by their brackets and quotes before they are decoded. So memory is bounded by
the longest value, and a bad byte costs one value and none of its neighbours.
"""

import re
from collections.abc import Iterable, Iterator

from blendtitan.errors import InputError

Piece = tuple[int, bytes | int]
"""The first byte of a line or value, and its content or, if it is too long, its size in bytes."""

_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_VALUE = re.compile(rb'["{}\[\]]')
_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
_SCALAR_END = re.compile(rb'[,{}\[\]"\n]')


def split_values(
    blocks: Iterable[bytes], *, at: int = 0, max_bytes: int, in_arrays: bool
) -> Iterator[Piece]:
    """Consecutive JSON values, separated by their brackets and quotes but not checked.

    Args:
        blocks: Contents, in order.
        at: Position of the first byte.
        max_bytes: Limit for a value. No more than that, and a block, is held in memory.
        in_arrays: Treat the items of outer arrays as values.

    Raises:
        InputError: With ``in_arrays``, the last value or an outer array is incomplete. The
            message is the reason. Without it, an incomplete value is returned as it is.
    """
    splitter = _Splitter(at, max_bytes, in_arrays)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.finish()


class _Splitter:
    """Separates values across blocks."""

    def __init__(self, position: int, max_bytes: int, in_arrays: bool) -> None:
        self._position = position  # of the block's first byte
        self._max_bytes = max_bytes
        self._in_arrays = in_arrays
        self._held: list[bytes] = []  # the value's bytes in earlier blocks
        self._value_bytes = 0
        self._value_start: int | None = None
        self._array_start: int | None = None
        self._depth = 0
        self._in_string = False
        self._carried = b""  # a backslash, whose next byte is in the next block

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Values that end in a block."""
        block = self._carried + block
        self._carried = b""
        pos = start = 0
        while pos < len(block):
            if self._in_string:
                pos = self._skip_string(block, pos)
                if self._carried:
                    block = block[:pos]
                    break
            elif self._value_start is None:
                pos = start = self._begin(block, pos)
            else:
                pos, is_end = self._scan_value(block, pos, self._value_start)
                if is_end:
                    yield self._ended(block[start:pos], self._value_start)
        if self._value_start is not None:
            self._hold(block[start:])
        self._position += len(block)

    def finish(self) -> Iterator[Piece]:
        """The value that the end of the content ends."""
        if self._in_arrays and (self._depth or self._in_string or self._array_start is not None):
            begin = self._array_start if self._value_start is None else self._value_start
            raise InputError(
                f"the content ends inside the JSON value that starts at byte {begin:,}"
            )
        if self._value_start is not None:
            yield self._ended(self._carried, self._value_start)

    def _begin(self, block: bytes, pos: int) -> int:
        """Skip what precedes a value; returns the start of the value or of the rest."""
        found = _NOT_SPACE.search(block, pos)
        if found is None:
            return len(block)
        pos, mark = found.start(), found[0]
        if self._in_arrays and mark == b"[" and self._array_start is None:
            self._array_start = self._position + pos
        elif self._array_start is not None and mark == b"]":
            self._array_start = None
        elif mark != b",":
            self._value_start = self._position + pos
            return pos
        return pos + 1

    def _scan_value(self, block: bytes, pos: int, start: int) -> tuple[int, bool]:
        """Advance to the next significant byte; returns the position after it, and if it ends."""
        is_scalar = self._depth == 0 and (self._value_bytes or pos > start - self._position)
        pattern = _SCALAR_END if is_scalar else _IN_VALUE if self._depth else _NOT_SPACE
        found = pattern.search(block, pos)
        if found is None:
            return len(block), False
        if is_scalar:
            return found.start(), True
        mark = found[0]
        if mark == b'"':
            self._in_string = True
        elif mark in b"{[":
            self._depth += 1
        elif mark in b"}]" and self._depth:
            self._depth -= 1
            return found.end(), self._depth == 0
        return found.end(), False

    def _skip_string(self, block: bytes, pos: int) -> int:
        """Go to the end of a string, or to the end of the block."""
        found = _STRING_REST.match(block, pos)
        assert found is not None
        pos = found.end()
        if pos < len(block):
            if block[pos : pos + 1] == b'"':
                self._in_string = False
                return pos + 1
            self._carried = block[pos:]
        return pos

    def _hold(self, part: bytes) -> None:
        self._value_bytes += len(part)
        if self._value_bytes <= self._max_bytes:
            self._held.append(part)
        else:
            self._held.clear()

    def _ended(self, part: bytes, start: int) -> Piece:
        self._hold(part)
        fits = self._value_bytes <= self._max_bytes
        value = start, b"".join(self._held) if fits else self._value_bytes
        self._held, self._value_bytes, self._value_start = [], 0, None
        self._in_string, self._depth = False, 0
        return value
