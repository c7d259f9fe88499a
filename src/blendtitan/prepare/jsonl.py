"""Reading JSON lines, plain or compressed, with bounded memory; every bad line is reported.

    blocks of bytes  ->  lines  ->  texts

Lines are split before they are decoded, so that a bad byte costs one line and no neighbour.
"""

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson
import zstandard

from blendtitan.errors import InputError

SUFFIXES = (".jsonl", ".json", ".gz", ".zst")
"""What the names of input files end in. ``.json`` files are read as JSON lines too."""

MAX_LINE_BYTES = 1 << 28
"""A longer line is a bad line: files without line ends exist, documents of 256 MiB do not."""

_BLOCK_BYTES = 1 << 18
# A small chunk of zstd may decompress to 10,000 times its size, all at once.
_ZSTD_CHUNK_BYTES = 1 << 14
# Large corpora are compressed with `zstd --long=31`; smaller windows cost no more memory for it.
_MAX_ZSTD_WINDOW = 1 << 31
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no text to train on, and why."""

    path: Path
    line_number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line_number}: {self.reason}"


def read_texts(
    path: Path, *, key: str = "text", advance: Callable[[int], None] = lambda _: None
) -> Iterator[str | BadLine]:
    """Texts of a file of JSON lines, in order, with a ``BadLine`` in the place of each bad line.

    Lines of white space only are no lines: they are passed over.

    Args:
        path: A plain, ``.gz`` or ``.zst`` file. Compressed files may have several members.
        key: The field of each line's object that holds the text.
        advance: Called with the number of bytes of the file, as stored, that were read.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    for number, line in enumerate(split_lines(read_blocks(path, advance=advance)), start=1):
        if line is None:
            yield BadLine(path, number, f"the line is longer than {MAX_LINE_BYTES:,} bytes")
            continue
        content = (line.removeprefix(_UTF8_BOM) if number == 1 else line).strip()
        if content:
            yield _text_or_bad_line(content, key=key, path=path, number=number)


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
    blocks: Iterable[bytes], *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[bytes | None]:
    """Lines without their newline, across blocks; ``None`` for one that is too long.

    The last line needs no newline. At most ``max_line_bytes`` and one block are held.
    """
    held: list[bytes] = []
    line_bytes = 0
    for block in blocks:
        *ends, rest = block.split(b"\n")
        for end in ends:
            fits = line_bytes + len(end) <= max_line_bytes
            yield b"".join([*held, end]) if fits else None
            held, line_bytes = [], 0
        line_bytes += len(rest)
        # What cannot become a line any more is counted, not kept.
        held = [*held, rest] if line_bytes <= max_line_bytes else []
    if line_bytes:
        yield b"".join(held) if line_bytes <= max_line_bytes else None


def read_blocks(path: Path, *, advance: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """Contents of a file, decompressed as its name says, in blocks.

    Raises:
        InputError: The file cannot be read or decompressed, or ends too early.
    """
    decompressed = {".gz": _gzip_blocks, ".zst": _zstd_blocks}.get(path.suffix, _plain_blocks)
    at = 0
    try:
        with path.open("rb") as file:
            for block in decompressed(file):
                advance(file.tell() - at)
                at = file.tell()
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise InputError(
            f"{path}: the compressed data cannot be read: {error}. The copy is incomplete or "
            f"damaged: copy or compress the file again."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _text_or_bad_line(line: bytes, *, key: str, path: Path, number: int) -> str | BadLine:
    try:
        return text_of_line(line, key=key)
    except InputError as error:
        return BadLine(path, number, str(error))


def _plain_blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    _check_not_empty(file)
    with gzip.GzipFile(fileobj=file) as members:
        while block := members.read(_BLOCK_BYTES):
            yield block


def _zstd_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Frame by frame: the file reader of zstandard takes a truncated file for a whole one."""
    _check_not_empty(file)
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


def _check_not_empty(file: BinaryIO) -> None:
    # Compressing nothing gives some bytes; zero bytes are a copy that never started.
    if os.fstat(file.fileno()).st_size == 0:
        raise EOFError("the file is empty")
