"""Texts of JSON files: one value per line, arrays, or values over several lines.

    blocks of bytes  ->  lines or values  ->  JSON values  ->  texts

Lines and values are separated before they are decoded. So a bad byte costs one text and none of
its neighbours, memory is bounded by the longest text, and every unusable text is reported.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import orjson

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES, InputFile
from blendtitan.prepare.json_values import Piece, split_values
from blendtitan.prepare.streams import read_blocks

UTF8_BOM = b"\xef\xbb\xbf"

_HEAD_BYTES = 1 << 20
_HEAD_LINES = 16
_SHOWN_KEYS = 5

Advance = Callable[[int], None]
"""Called with the number of bytes of a file, as stored, that were read."""


@dataclass(frozen=True, slots=True)
class BadText:
    """A place in a file that holds no text to train on, and the reason."""

    unit: str
    """The unit of ``place``: ``byte``, ``row`` or ``document``."""

    place: int
    """Row, or first byte of the line, in the file (after decompression)."""

    reason: str

    @classmethod
    def too_long(
        cls, place: int, num_bytes: int, max_bytes: int, *, what: str, unit: str = "byte"
    ) -> "BadText":
        """A text that exceeds the limit."""
        limit = f"allowed are {max_bytes:,} (--max-document-bytes)"
        return cls(unit, place, f"the {what} has {num_bytes:,} bytes, {limit}")


def read_lines(
    file: InputFile,
    start: int,
    stop: int,
    *,
    key: str,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    advance: Advance = lambda _: None,
) -> Iterator[str | BadText]:
    """Texts of the JSON lines that start at bytes ``start`` to ``stop - 1`` of a file, in order.

    An unusable text is replaced by a ``BadText``. Blank lines are skipped. If a line holds
    several JSON values, each is a text.

    Args:
        file: The file. A compressed file is read as a whole, whatever the range.
        start: First byte.
        stop: Byte after the last.
        key: The field of each object that holds the text.
        max_bytes: Limit for a line.
        advance: Called with the number of bytes of the file, as stored, that were read.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    for place, line in lines_of(file, start, stop, max_bytes=max_bytes, advance=advance):
        if isinstance(line, int):
            yield BadText.too_long(place, line, max_bytes, what="line")
        elif content := line.strip():
            yield from _texts_of_line(content, key=key, place=place, max_bytes=max_bytes)


def read_json(
    file: InputFile,
    start: int,
    stop: int,
    *,
    key: str,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    advance: Advance = lambda _: None,
) -> Iterator[str | BadText]:
    """Texts of a file of JSON lines, arrays, or values over several lines: see ``read_lines``."""
    if has_json_lines(file):
        yield from read_lines(file, start, stop, key=key, max_bytes=max_bytes, advance=advance)
        return
    blocks = _without_bom(read_blocks(file, advance=advance))
    try:
        for place, value in split_values(blocks, max_bytes=max_bytes, in_arrays=True):
            if isinstance(value, int):
                yield BadText.too_long(place, value, max_bytes, what="JSON value")
            else:
                yield _text_or_reason(value.strip(), key=key, place=place)
    except InputError as error:
        if str(error).startswith(file.location):
            raise
        raise InputError(
            f"{file.location}: {error}. The copy is incomplete, or a bracket or quote is missing."
        ) from error


def has_json_lines(file: InputFile) -> bool:
    """Whether a file holds one JSON value per line, judging by its first lines."""
    head = b""
    is_whole = True
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


def lines_of(
    file: InputFile, start: int, stop: int, *, max_bytes: int, advance: Advance = lambda _: None
) -> Iterator[Piece]:
    """Lines that start in a range of a file, without a byte order mark: see ``split_lines``."""
    whole = bool(file.format.compression)
    first = 0 if whole or start == 0 else _first_line_start(file, start, stop)
    blocks = read_blocks(file, start=first, advance=advance)
    lines = split_lines(blocks, at=first, max_line_bytes=max_bytes)
    for place, line in lines if whole else takewhile(lambda line: line[0] < stop, lines):
        is_first = place == 0 and isinstance(line, bytes)
        yield place, line.removeprefix(UTF8_BOM) if is_first else line  # pyright: ignore


def _first_line_start(file: InputFile, start: int, stop: int) -> int:
    """The first byte from ``start`` on that begins a line, or ``stop`` if there is none."""
    # The line at `start` begins there if the byte before it ends another.
    position = start - 1
    for block in read_blocks(file, start=position):
        found = block.find(b"\n", 0, stop - position)
        if found >= 0:
            return position + found + 1
        position += len(block)
        if position >= stop:
            break
    return stop


def _texts_of_line(line: bytes, *, key: str, place: int, max_bytes: int) -> list[str | BadText]:
    """The texts of the JSON values in a line; usually there is one.

    A value that cannot be separated stays together with what follows it.
    """
    text = _text_or_reason(line, key=key, place=place)
    if isinstance(text, str):
        return [text]
    values = [
        value.strip()
        for _, value in split_values([line], max_bytes=max_bytes, in_arrays=False)
        if isinstance(value, bytes)
    ]
    if len(values) == 1:
        return [text]
    return [_text_or_reason(value, key=key, place=place) for value in values]


def _text_or_reason(value: bytes, *, key: str, place: int) -> str | BadText:
    try:
        return _text_of_json(value, key=key)
    except InputError as error:
        return BadText("byte", place, str(error))


def _text_of_json(value: bytes, *, key: str) -> str:
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        # Python writes NaN and halves of surrogate pairs, which may be in other fields.
        reason = f"not JSON in UTF-8: {error}"
        text = _text_in(_parsed_by_python(value, reason), key)
        if not is_unicode(text):
            raise InputError(reason) from None
        return text
    return _text_in(parsed, key)


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


def check_unambiguous(name: str, names: Sequence[str], location: str) -> None:
    """Raise an ``InputError`` if several columns of a file have the same name."""
    if names.count(name) > 1:
        raise InputError(
            f"{location}: there are {names.count(name)} columns {name!r}, expected one: the name "
            f"is ambiguous. Rename them, so that the one that holds the texts has its own name."
        )


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded in UTF-8, which halves of surrogate pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def split_lines(
    blocks: Iterable[bytes], *, at: int = 0, max_line_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[Piece]:
    """Lines without their newline, across blocks, with the byte at which each starts.

    A line that is too long is replaced by its size in bytes. The last line needs no newline. At
    most ``max_line_bytes`` and one block are held in memory.

    Args:
        blocks: Contents, beginning at the start of a line.
        at: The position of that line, in bytes.
        max_line_bytes: Limit for a line.
    """
    held: list[bytes] = []
    line_bytes = 0
    for block in blocks:
        if not line_bytes and block.isspace():
            # Skip blank lines at once: a file of nothing else must not take hours.
            end = block.rfind(b"\n") + 1
            at, block = at + end, block[end:]
        *ends, rest = block.split(b"\n")
        for end in ends:
            line_bytes += len(end)
            yield at, b"".join([*held, end]) if line_bytes <= max_line_bytes else line_bytes
            at += line_bytes + 1
            held, line_bytes = [], 0
        line_bytes += len(rest)
        # A line that is already too long is counted, not kept.
        if line_bytes <= max_line_bytes:
            held.append(rest)
        else:
            held.clear()
    if line_bytes:
        yield at, b"".join(held) if line_bytes <= max_line_bytes else line_bytes


def _without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Replace a byte order mark by spaces, so that positions stay the same."""
    for number, block in enumerate(blocks):
        is_marked = number == 0 and block.startswith(UTF8_BOM)
        yield b"   " + block[len(UTF8_BOM) :] if is_marked else block


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(_parsed_by_python(line, ""), dict)
    except InputError:
        return False
