"""Reading JSON lines, plain or compressed, with bounded memory; every bad text is reported.

    blocks of bytes  ->  lines  ->  JSON values  ->  texts

Lines are split before they are decoded, so that a bad byte costs one line and no neighbour.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import BinaryIO

import orjson
import zstandard
from isal import igzip
from isal.igzip_lib import IsalError

from blendtitan.errors import InputError
from blendtitan.prepare.inputs import COMPRESSED, InputFile, readable

MAX_LINE_BYTES = 1 << 28
"""A longer line is a bad line: files without line ends exist, documents of 256 MiB do not."""

_BLOCK_BYTES = 1 << 18
# A small chunk of zstd may decompress to 10,000 times its size, all at once.
_ZSTD_CHUNK_BYTES = 1 << 14
# Large corpora are compressed with `zstd --long=31`; smaller windows cost no more memory for it.
_MAX_ZSTD_WINDOW = 1 << 31
_UTF8_BOM = b"\xef\xbb\xbf"
_JSON_SPACE = " \t\r\n"
_DAMAGE: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    IsalError,  # pyright: ignore[reportAssignmentType]
    gzip.BadGzipFile,
    zstandard.ZstdError,
)


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
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[str | BadText]:
    """Texts of the JSON lines that start at bytes ``start`` to ``stop - 1`` of a file, in order.

    A ``BadText`` is in the place of each that cannot be used. Lines of white space only are no
    lines: they are passed over. A line may hold several JSON values; each is a text.

    Args:
        file: A plain, ``.gz`` or ``.zst`` file. Compressed files may have several members; they
            are read as a whole, whatever the range.
        start: First byte.
        stop: Byte after the last.
        key: The field of each line's object that holds the text.
        advance: Called with the number of bytes of the file, as stored, that were read.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    whole = file.suffix in COMPRESSED
    at = 0 if whole or start == 0 else first_line_start(file, start, stop)
    lines = split_lines(read_blocks(file, start=at, advance=advance), at=at)
    for place, line in lines if whole else takewhile(lambda line: line[0] < stop, lines):
        if line is None:
            yield BadText("byte", place, f"the line is longer than {MAX_LINE_BYTES:,} bytes")
            continue
        content = (line.removeprefix(_UTF8_BOM) if place == 0 else line).strip()
        if content:
            yield from texts_of_line(content, key=key, place=place)


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


def texts_of_line(line: bytes, *, key: str, place: int) -> list[str | BadText]:
    """The texts of the JSON values that stand one after the other in a line; usually it is one.

    What cannot be told apart stays together, with what follows it.
    """
    try:
        return [text_of_line(line, key=key)]
    except InputError as error:
        bad_line = BadText("byte", place, str(error))
    values = _separate_values(line)
    if len(values) == 1:
        return [bad_line]
    return [text for value in values for text in texts_of_line(value, key=key, place=place)]


def text_of_line(line: bytes, *, key: str) -> str:
    """The text in one line of JSON.

    Raises:
        InputError: It holds none. The message is the reason.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not a line of JSON in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"found JSON of type {type(value).__name__}, expected an object")
    if key not in value:
        found = ", ".join(repr(name) for name in list(value)[:5]) or "none"
        raise InputError(f"there is no key {key!r}, found {found}")
    text = value[key]
    if not isinstance(text, str):
        raise InputError(f"{key!r} is of type {type(text).__name__}, expected a string")
    if not text:
        raise InputError(f"{key!r} is an empty string")
    return text


def split_lines(
    blocks: Iterable[bytes], *, at: int = 0, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes | None]]:
    """Lines without their newline, across blocks, and where they start.

    ``None`` stands for a line that is too long. The last line needs no newline. At most
    ``max_line_bytes`` and one block are held.

    Args:
        blocks: Contents, from the start of a line on.
        at: Where that is, in bytes.
        max_line_bytes: Longest line.
    """
    held: list[bytes] = []
    line_bytes = 0
    for block in blocks:
        *ends, rest = block.split(b"\n")
        for end in ends:
            fits = line_bytes + len(end) <= max_line_bytes
            yield at, b"".join([*held, end]) if fits else None
            at += line_bytes + len(end) + 1
            held, line_bytes = [], 0
        line_bytes += len(rest)
        # What cannot become a line any more is counted, not kept.
        held = [*held, rest] if line_bytes <= max_line_bytes else []
    if line_bytes:
        yield at, b"".join(held) if line_bytes <= max_line_bytes else None


def read_blocks(
    file: InputFile, *, start: int = 0, advance: Callable[[int], None] = lambda _: None
) -> Iterator[bytes]:
    """Contents of a file from byte ``start`` on, decompressed as its name says, in blocks.

    Raises:
        InputError: The file cannot be read or decompressed, or ends too early.
    """
    decompressed = {".gz": _gzip_blocks, ".zst": _zstd_blocks}.get(file.suffix, _plain_blocks)
    at = start
    with readable(file.location):
        try:
            if file.suffix in COMPRESSED and file.num_bytes == 0:
                # Compressing nothing gives some bytes; zero bytes are a copy that never started.
                raise EOFError("the file is empty")
            with file.open() as opened:
                opened.seek(start)
                for block in decompressed(opened):
                    advance(opened.tell() - at)
                    at = opened.tell()
                    yield block
        except _DAMAGE as error:
            raise InputError(
                f"{file.location}: the compressed data cannot be read: {error}. The copy is "
                f"incomplete or damaged: copy or compress the file again."
            ) from error


def _separate_values(line: bytes) -> list[bytes]:
    try:
        rest = line.decode()
    except UnicodeDecodeError:
        return [line]
    values: list[bytes] = []
    while rest:
        try:
            _, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            end = len(rest)
        values.append(rest[:end].encode())
        rest = rest[end:].lstrip(_JSON_SPACE)
    return values


def _plain_blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    with igzip.IGzipFile(fileobj=file) as members:
        while block := members.read(_BLOCK_BYTES):
            yield block


def _zstd_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Frame by frame: the file reader of zstandard takes a truncated file for a whole one."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    frame = None
    while chunk := file.read(_ZSTD_CHUNK_BYTES):
        while chunk:
            frame = frame or decompressor.decompressobj()
            if block := frame.decompress(chunk):
                yield block
            chunk = frame.unused_data
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it ends inside a frame")
