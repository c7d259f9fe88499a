"""Texts of JSON files: one value per line, arrays, or values over several lines.

Lines and values are separated before they are decoded, values by their brackets and quotes. So a
bad byte costs one text and none of its neighbours, memory is bounded by the longest text, and every
unusable text is reported.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.streams import (
    UTF8_BOM,
    BadText,
    Kept,
    Piece,
    Text,
    TextRange,
    is_unicode,
    kept_text,
    read_blocks,
)

_HEAD_BYTES = 1 << 20
_HEAD_LINES = 16
_SHOWN_KEYS = 5

_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_VALUE = re.compile(rb'["{}\[\]]')
_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
_SCALAR_END = re.compile(rb'[,{}\[\]"\n]')


def read_lines(source: TextRange) -> Iterator[Text | BadText]:
    """Texts of the JSON lines that start in a range of a file, in order.

    An unusable text is replaced by a ``BadText``. Blank lines are skipped. If a line holds
    several JSON values, each is a text.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    for place, line in source.lines():
        if isinstance(line, int):
            yield BadText.too_long(place, line, source.max_bytes, what="line")
        elif content := line.strip():
            yield from _texts_of_line(content, place, source)


def read_json(source: TextRange) -> Iterator[Text | BadText]:
    """Texts of a file of JSON lines, arrays, or values over several lines: see ``read_lines``."""
    if has_json_lines(source.file):
        yield from read_lines(source)
        return
    location = source.file.location
    blocks = _without_bom(source.blocks())
    try:
        for place, value in split_values(blocks, max_bytes=source.max_bytes, in_arrays=True):
            if isinstance(value, int):
                yield BadText.too_long(place, value, source.max_bytes, what="JSON value")
            else:
                yield _text_or_reason(value.strip(), place, source)
    except InputError as error:
        if str(error).startswith(location):
            raise
        raise InputError(
            f"{location}: {error}. The copy is incomplete, or a bracket or quote is missing."
        ) from error


def has_json_lines(file: InputFile) -> bool:
    """Whether a file holds one JSON value per line, judging by its first lines."""
    head, is_whole = b"", True
    for block in read_blocks(file):
        head += block
        if len(head) >= _HEAD_BYTES:
            is_whole = False
            break
    head = head.removeprefix(UTF8_BOM).lstrip()
    lines = head.split(b"\n")
    if not is_whole and len(lines) == 1:
        # One long line: an array, or a long document.
        return not head.startswith(b"[")
    complete = lines if is_whole else lines[:-1]
    starts = [line for line in complete[:_HEAD_LINES] if line.startswith(b"{")]
    return any(map(_is_json_object, starts)) or not head.startswith((b"{", b"["))


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(_parsed_by_python(line, ""), dict)
    except InputError:
        return False


def _without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Replace a byte order mark by spaces, so that positions stay the same."""
    for number, block in enumerate(blocks):
        is_marked = number == 0 and block.startswith(UTF8_BOM)
        yield b"   " + block[len(UTF8_BOM) :] if is_marked else block


def _texts_of_line(line: bytes, place: int, source: TextRange) -> list[Text | BadText]:
    """The texts of the JSON values in a line; a value that cannot be separated stays in one."""
    text = _text_or_reason(line, place, source)
    if not isinstance(text, BadText):
        return [text]
    values = [
        value.strip()
        for _, value in split_values([line], max_bytes=source.max_bytes, in_arrays=False)
        if isinstance(value, bytes)
    ]
    if len(values) == 1:
        return [text]
    return [_text_or_reason(value, place, source) for value in values]


def _text_or_reason(value: bytes, place: int, source: TextRange) -> Text | BadText:
    reason = ""
    try:
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            # Python writes NaN and halves of surrogate pairs, which may be in other fields.
            reason = f"not JSON in UTF-8: {error}"
            parsed = _parsed_by_python(value, reason)
        text = _text_in(parsed, source.key)
    except InputError as error:
        return BadText("byte", place, str(error))
    if reason and not is_unicode(text):
        return BadText("byte", place, reason)
    return place, text, _kept_in(parsed, source.keep) if source.keep else ()


def _kept_in(parsed: dict[str, Any], keep: Iterable[str]) -> Kept:
    """Fields of an object, each under its name or a path such as ``meta.url``."""
    values: list[str | None] = []
    for name in keep:
        value: Any = parsed
        for part in [name] if name in parsed else name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        values.append(kept_text(value))
    return tuple(values)


def _parsed_by_python(value: bytes, reason: str) -> Any:
    try:
        return json.loads(value.decode())
    except (ValueError, RecursionError):
        raise InputError(reason) from None


def _text_in(parsed: Any, key: str) -> str:
    """The text under a key, or under a path such as ``content.text``."""
    if not isinstance(parsed, dict):
        raise InputError(f"found JSON of type {type(parsed).__name__}, expected an object")
    text: Any = parsed
    for name in [key] if key in parsed else key.split("."):
        if not isinstance(text, dict) or name not in text:
            found = ", ".join(repr(name) for name in list(parsed)[:_SHOWN_KEYS]) or "none"
            raise InputError(f"there is no key {key!r}, found {found}")
        text = text[name]
    if not isinstance(text, str):
        raise InputError(f"{key!r} is of type {type(text).__name__}, expected a string")
    if not text:
        raise InputError(f"{key!r} is an empty string")
    return text


def split_values(blocks: Iterable[bytes], *, max_bytes: int, in_arrays: bool) -> Iterator[Piece]:
    """Consecutive JSON values, separated by their brackets and quotes but not checked.

    No more than ``max_bytes`` of a value, and a block, are held in memory. With ``in_arrays``, the
    items of outer arrays are values.

    Raises:
        InputError: With ``in_arrays``, the last value or an outer array is incomplete. The
            message is the reason. Without it, an incomplete value is returned.
    """
    splitter = _Splitter(max_bytes, in_arrays)
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.finish()


class _Splitter:
    """Separates values across blocks."""

    def __init__(self, max_bytes: int, in_arrays: bool) -> None:
        self._position = 0  # of the block's first byte
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
        """The value that ends with the content, if there is one."""
        if self._in_arrays and (self._depth or self._in_string or self._array_start is not None):
            begin = self._array_start if self._value_start is None else self._value_start
            raise InputError(
                f"the content ends inside the JSON value that starts at byte {begin:,}"
            )
        if self._value_start is not None:
            yield self._ended(self._carried, self._value_start)

    def _begin(self, block: bytes, pos: int) -> int:
        """Skip to the next value; returns the start of the value or of the rest."""
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
        """Skip past the next significant byte; return the new position, and if the value ends."""
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
