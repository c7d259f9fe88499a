"""Reading JSON, one value a line or otherwise, with bounded memory; every bad text is reported.

    blocks of bytes  ->  lines or values  ->  JSON values  ->  texts

Lines are split before they are decoded, so that a bad byte costs one line and no neighbour.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import orjson

from blendtitan.errors import InputError
from blendtitan.prepare.file_formats import MAX_DOCUMENT_BYTES
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.json_values import split_values
from blendtitan.prepare.streams import read_blocks

_UTF8_BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 1 << 20
_HEAD_LINES = 16
_SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class BadText:
    """A place in a file that holds no text to train on, and why."""

    unit: str
    """What ``place`` counts: ``byte``, ``row`` or ``document``."""

    place: int
    """Row, or first byte of the line, in the file; of what it decompresses to, if compressed."""

    reason: str


def read_lines(
    file: InputFile,
    start: int,
    stop: int,
    *,
    key: str,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[str | BadText]:
    """Texts of the JSON lines that start at bytes ``start`` to ``stop - 1`` of a file, in order.

    A ``BadText`` is in the place of each that cannot be used. Lines of white space only are no
    lines: they are passed over. A line may hold several JSON values; each is a text.

    Args:
        file: Compressed files may have several members; they are read as a whole, whatever the
            range.
        start: First byte.
        stop: Byte after the last.
        key: The field of each line's object that holds the text.
        max_bytes: Longest line.
        advance: Called with the number of bytes of the file, as stored, that were read.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    for place, line in lines_of(file, start, stop, max_bytes=max_bytes, advance=advance):
        if isinstance(line, int):
            yield too_long(place, line, max_bytes, what="line")
        elif content := line.strip():
            yield from texts_of_line(content, key=key, place=place, max_bytes=max_bytes)


def read_json(
    file: InputFile,
    start: int,
    stop: int,
    *,
    key: str,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[str | BadText]:
    """Texts of a file of JSON lines, arrays, or values over several lines: see ``read_lines``.

    Raises:
        InputError: The file cannot be read, or its last value has no end.
    """
    if has_json_lines(file):
        yield from read_lines(file, start, stop, key=key, max_bytes=max_bytes, advance=advance)
        return
    values = split_values(
        _without_bom(read_blocks(file, advance=advance)), max_bytes=max_bytes, in_arrays=True
    )
    try:
        for place, value in values:
            if isinstance(value, int):
                yield too_long(place, value, max_bytes, what="JSON value")
            else:
                yield _text_or_reason(value.strip(), key=key, place=place)
    except InputError as error:
        if str(error).startswith(file.location):
            raise
        raise InputError(
            f"{file.location}: {error}. The copy is incomplete, or a bracket or quote is missing."
        ) from error


def has_json_lines(file: InputFile) -> bool:
    """Whether a file holds one JSON value a line, judging by its first lines.

    Raises:
        InputError: The file cannot be read.
    """
    head = b""
    is_whole = True
    for block in read_blocks(file):
        head += block
        if len(head) >= _HEAD_BYTES:
            is_whole = False
            break
    head = head.removeprefix(_UTF8_BOM).lstrip()
    lines = head.split(b"\n")
    if not is_whole and len(lines) > 1:
        lines.pop()
    elif not is_whole:
        # One long line: an array, or a long document.
        return not head.startswith(b"[")
    starts = [line for line in lines[:_HEAD_LINES] if line.startswith(b"{")]
    return any(map(_is_json_object, starts)) or not head.startswith((b"{", b"["))


def lines_of(
    file: InputFile,
    start: int,
    stop: int,
    *,
    max_bytes: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[int, bytes | int]]:
    """Lines that start in a range of a file: see ``split_lines``. A byte order mark is left out.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    whole = bool(file.format.compression)
    at = 0 if whole or start == 0 else first_line_start(file, start, stop)
    blocks = read_blocks(file, start=at, advance=advance)
    lines = split_lines(blocks, at=at, max_line_bytes=max_bytes)
    for place, line in lines if whole else takewhile(lambda line: line[0] < stop, lines):
        is_first = place == 0 and isinstance(line, bytes)
        yield place, line.removeprefix(_UTF8_BOM) if is_first else line  # pyright: ignore


def check_unambiguous(name: str, names: Sequence[str], location: str) -> None:
    """Check that one column of a file has a name.

    Raises:
        InputError: Several have.
    """
    if names.count(name) > 1:
        raise InputError(
            f"{location}: there are {names.count(name)} columns {name!r}, expected one: the name "
            f"is ambiguous. Rename them, so that the one that holds the texts has its own name."
        )


def too_long(
    place: int, num_bytes: int, max_bytes: int, *, what: str, unit: str = "byte"
) -> BadText:
    """Why a text is not read that is too long to be held."""
    return BadText(
        unit,
        place,
        f"the {what} has {num_bytes:,} bytes, allowed are {max_bytes:,} (--max-document-bytes)",
    )


def first_line_start(file: InputFile, start: int, stop: int) -> int:
    """First byte from ``start`` on that begins a line; ``stop`` if there is none before it.

    Raises:
        InputError: The file cannot be read.
    """
    # The line at `start` begins there if the byte before it ends another.
    at = start - 1
    for block in read_blocks(file, start=at):
        found = block.find(b"\n", 0, stop - at)
        if found >= 0:
            return at + found + 1
        at += len(block)
        if at >= stop:
            break
    return stop


def texts_of_line(line: bytes, *, key: str, place: int, max_bytes: int) -> list[str | BadText]:
    """The texts of the JSON values that stand one after the other in a line; usually it is one.

    What cannot be told apart stays together, with what follows it.
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
        return text_of_json(value, key=key)
    except InputError as error:
        return BadText("byte", place, str(error))


def text_of_json(value: bytes, *, key: str) -> str:
    """The text in one JSON value.

    Raises:
        InputError: It holds none. The message is the reason.
    """
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        # Python writes NaN and halves of surrogate pairs, which may lie in other fields.
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
    if not isinstance(parsed, dict):
        raise InputError(f"found JSON of type {type(parsed).__name__}, expected an object")
    text = parsed[key] if key in parsed else _nested(parsed, key)
    if not isinstance(text, str):
        raise InputError(f"{key!r} is of type {type(text).__name__}, expected a string")
    if not text:
        raise InputError(f"{key!r} is an empty string")
    return text


def _nested(parsed: Mapping[str, Any], key: str) -> Any:
    """The value under a path such as ``content.text``."""
    value: Any = parsed
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            found = ", ".join(repr(name) for name in list(parsed)[:_SHOWN_KEYS]) or "none"
            raise InputError(f"there is no key {key!r}, found {found}")
        value = value[name]
    return value


def is_unicode(text: str) -> bool:
    """Whether a text has a form in UTF-8: halves of surrogate pairs have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def split_lines(
    blocks: Iterable[bytes], *, at: int = 0, max_line_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[tuple[int, bytes | int]]:
    """Lines without their newline, across blocks, and where they start.

    A number of bytes is in the place of a line that is too long. The last line needs no newline.
    At most ``max_line_bytes`` and one block are held.

    Args:
        blocks: Contents, from the start of a line on.
        at: Where that is, in bytes.
        max_line_bytes: Longest line.
    """
    held: list[bytes] = []
    line_bytes = 0
    for block in blocks:
        if not line_bytes and block.isspace():
            # Blank lines are no lines to anyone; a file of nothing else should not take hours.
            end = block.rfind(b"\n") + 1
            at, block = at + end, block[end:]
        *ends, rest = block.split(b"\n")
        for end in ends:
            line_bytes += len(end)
            yield at, b"".join([*held, end]) if line_bytes <= max_line_bytes else line_bytes
            at += line_bytes + 1
            held, line_bytes = [], 0
        line_bytes += len(rest)
        # What cannot become a line any more is counted, not kept.
        if line_bytes <= max_line_bytes:
            held.append(rest)
        else:
            held.clear()
    if line_bytes:
        yield at, b"".join(held) if line_bytes <= max_line_bytes else line_bytes


def _without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks without a byte order mark; white space keeps the places of what follows."""
    for number, block in enumerate(blocks):
        is_marked = number == 0 and block.startswith(_UTF8_BOM)
        yield b"   " + block[len(_UTF8_BOM) :] if is_marked else block


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(_parsed_by_python(line, ""), dict)
    except InputError:
        return False
