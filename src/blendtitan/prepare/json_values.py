"""JSON values that are not one a line: arrays, values over several lines, several on a line.

Values are cut apart by their brackets and quotes before they are decoded, so that memory is
bounded by the longest value, and a bad byte costs one value and no neighbour.
"""

import re
from collections.abc import Iterable, Iterator

from blendtitan.errors import InputError

_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_VALUE = re.compile(rb'["{}\[\]]')
_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
_SCALAR_END = re.compile(rb'[,{}\[\]"\n]')
_UTF8_BOM = b"\xef\xbb\xbf"


def split_values(
    blocks: Iterable[bytes], *, at: int = 0, max_bytes: int, in_arrays: bool
) -> Iterator[tuple[int, bytes | int]]:
    """JSON values one after the other, and the byte at which each starts.

    A number of bytes is in the place of a value that is longer than ``max_bytes``. Values are not
    checked: what stands where one should be is given as one.

    Args:
        blocks: Contents, in order.
        at: The first byte's place.
        max_bytes: Longest value. No more than that, and a block, is held.
        in_arrays: Take the items of outer arrays for values.

    Raises:
        InputError: The last value or an outer array has no end. The message is the reason. Not
            raised without ``in_arrays``, where an unfinished value is given as it is.
    """
    splitter = _Splitter(at, max_bytes, in_arrays)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.finish()


class _Splitter:
    """Cuts values apart, across blocks."""

    def __init__(self, at: int, max_bytes: int, in_arrays: bool) -> None:
        self._at = at  # place of the block's first byte
        self._max_bytes = max_bytes
        self._in_arrays = in_arrays
        self._held: list[bytes] = []  # the value's bytes in earlier blocks
        self._value_bytes = 0
        self._value_at: int | None = None
        self._depth = 0
        self._in_string = False
        self._array_at: int | None = None
        self._carried = b""  # a backslash, whose next byte is in the next block

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes | int]]:
        """Values that end in a block."""
        block = self._carried + block
        self._carried = b""
        pos = start = 0
        while pos < len(block):
            if self._in_string:
                pos = self._pass_string(block, pos)
                if self._carried:
                    block = block[:pos]
                    break
                continue
            if self._value_at is None:
                pos = start = self._begin(block, pos)
                continue
            pos, is_end = self._pass_value(block, pos)
            if is_end:
                yield self._ended(block[start:pos])
        if self._value_at is not None:
            self._hold(block[start:])
        self._at += len(block)

    def finish(self) -> Iterator[tuple[int, bytes | int]]:
        """The value that the end of the content ends."""
        if self._in_arrays and (self._depth or self._in_string or self._array_at is not None):
            begin = self._array_at if self._value_at is None else self._value_at
            raise InputError(
                f"the content ends inside the JSON value that starts at byte {begin:,}"
            )
        if self._value_at is not None:
            yield self._ended(self._carried)

    def _begin(self, block: bytes, pos: int) -> int:
        """Pass over what lies before a value; returns where it, or what follows, begins."""
        found = _NOT_SPACE.search(block, pos)
        if found is None:
            return len(block)
        pos, mark = found.start(), found[0]
        if self._in_arrays and mark == b"[" and self._array_at is None:
            self._array_at = self._at + pos
        elif self._array_at is not None and mark == b"]":
            self._array_at = None
        elif mark != b",":
            self._value_at = self._at + pos
            return pos
        return pos + 1

    def _pass_value(self, block: bytes, pos: int) -> tuple[int, bool]:
        """Go to the next byte of a value that matters; returns its place, and if it ends it."""
        is_scalar = self._depth == 0 and (self._value_bytes or pos > self._value_at - self._at)  # pyright: ignore
        found = (_SCALAR_END if is_scalar else _IN_VALUE if self._depth else _NOT_SPACE).search(
            block, pos
        )
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

    def _pass_string(self, block: bytes, pos: int) -> int:
        """Go behind the end of a string, or to the end of the block."""
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
        # What is too long is counted, not kept.
        if self._value_bytes <= self._max_bytes:
            self._held.append(part)
        else:
            self._held.clear()

    def _ended(self, part: bytes) -> tuple[int, bytes | int]:
        self._hold(part)
        assert self._value_at is not None
        fits = self._value_bytes <= self._max_bytes
        value = self._value_at, b"".join(self._held) if fits else self._value_bytes
        self._held, self._value_bytes, self._value_at = [], 0, None
        self._in_string, self._depth = False, 0
        return value
