"""The content of an input file: decompressed blocks of bounded size, and the lines in them.

A few bytes may decompress to any amount. No reader holds more than one decompressed block and one
document, and each detects a file that ends too early.
"""

import bz2
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, BinaryIO

from isal import igzip
from isal.igzip_lib import IsalError

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import (
    DEFAULT_OPTIONS,
    MAX_DOCUMENT_BYTES,
    Compression,
    InputFile,
    ReadOptions,
    readable,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 18
UTF8_BOM = b"\xef\xbb\xbf"

# Large corpora are compressed with `zstd --long=31`. Files with smaller windows need less memory.
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}
# The largest dictionary that `xz -9` uses is 64 MiB; xz files may ask for 4 GiB.
_MAX_XZ_BYTES = 1 << 30
_DAMAGE: tuple[type[Exception], ...] = (
    *(EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError),
    IsalError,  # pyright: ignore[reportAssignmentType]
)

Advance = Callable[[int], None]
"""Called with the number of stored bytes that were read."""

Piece = tuple[int, bytes | int]
"""The first byte of a line or value, and its content or, if it is too long, its size in bytes."""


Kept = tuple[str | None, ...]
"""The fields of ``ReadOptions.keep``; None: the text has no such field."""

Text = tuple[int, str, Kept]
"""The place of a text in its file, the text, and its kept fields.

The place is a row, or the first byte of the line, in the file (after decompression). It is a plain
tuple because there are up to a million in a second.
"""


@dataclass(frozen=True, slots=True)
class BadText:
    """A place in a file without usable text, and the reason."""

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
        limit = f"more than the {max_bytes:,} allowed (--max-document-bytes)"
        return cls(unit, place, f"the {what} has {num_bytes:,} bytes, {limit}")


@dataclass(frozen=True, slots=True)
class TextRange:
    """A part of an input file, and the options for reading its texts."""

    file: InputFile

    start: int
    """First byte; in a Parquet file, first row group. Files that cannot be cut are read whole."""

    stop: int
    """The byte or row group after the last. Lines that start before it belong to the range."""

    key: str = "text"
    """Field or column of the texts. Plain text has none."""

    options: ReadOptions = DEFAULT_OPTIONS
    advance: Advance = lambda _: None

    @property
    def max_bytes(self) -> int:
        """Limit for a document, as stored."""
        return self.options.max_document_bytes

    @property
    def keep(self) -> tuple[str, ...]:
        """Names of the fields to record."""
        return self.options.keep

    @property
    def nothing_kept(self) -> Kept:
        """The kept fields of a text that has none of them."""
        return (None,) * len(self.keep)

    def blocks(self) -> Iterator[bytes]:
        """The whole file, decompressed."""
        return read_blocks(self.file, advance=self.advance)

    def lines(self) -> Iterator[Piece]:
        """Lines that start in the range, without a byte order mark: see ``split_lines``."""
        whole = bool(self.file.format.compression)
        first = 0 if whole or self.start == 0 else self._first_line_start()
        blocks = read_blocks(self.file, start=first, advance=self.advance)
        lines = split_lines(blocks, at=first, max_line_bytes=self.max_bytes)
        for place, line in lines if whole else takewhile(lambda line: line[0] < self.stop, lines):
            is_first = place == 0 and isinstance(line, bytes)
            yield place, line.removeprefix(UTF8_BOM) if is_first else line  # pyright: ignore

    def _first_line_start(self) -> int:
        """The first byte of the range that begins a line, or ``stop`` if none does."""
        # The line at `start` begins there if the byte before it ends another.
        position = self.start - 1
        for block in read_blocks(self.file, start=position):
            found = block.find(b"\n", 0, self.stop - position)
            if found >= 0:
                return position + found + 1
            position += len(block)
            if position >= self.stop:
                break
        return self.stop


def read_blocks(
    file: InputFile, *, start: int = 0, advance: Advance = lambda _: None
) -> Iterator[bytes]:
    """The content of a file from byte ``start`` on, decompressed according to its name.

    Raises:
        InputError: The file cannot be read or decompressed, or ends too early.
    """
    compression = file.format.compression
    position = start
    with readable(file.location):
        try:
            if compression and file.num_bytes == 0:
                # Compressed empty content has bytes; an empty file is a copy that never started.
                raise EOFError("the file is empty")
            with file.open() as opened:
                opened.seek(start)
                for block in _READERS[compression](opened):
                    advance(opened.tell() - position)
                    position = opened.tell()
                    yield block
        except (*_DAMAGE, OSError) as error:
            # The bz2 module has no exception of its own.
            is_bz2 = compression == "bz2" and isinstance(error, OSError) and error.errno is None
            if not (is_bz2 or isinstance(error, _DAMAGE)):
                raise
            raise InputError(
                f"{file.location}: the compressed data cannot be read: {error}. The copy is "
                f"incomplete or damaged: copy or compress the file again."
            ) from error


def _whole(open_content: Callable[[BinaryIO], Any]) -> Callable[[BinaryIO], Iterator[bytes]]:
    def read(file: BinaryIO) -> Iterator[bytes]:
        content = open_content(file)
        while block := content.read(BLOCK_BYTES):
            yield block

    return read


def _members(
    new_decompressor: Callable[[], Any], padding: bytes = b""
) -> Callable[[BinaryIO], Iterator[bytes]]:
    """A reader of one member or frame after the other, with optional padding between them.

    The file objects of these modules would end at a member whose first bytes are damaged.
    """

    def read(file: BinaryIO) -> Iterator[bytes]:
        member, chunk = None, b""
        while True:
            if not chunk and (member is None or member.needs_input):
                chunk = file.read(BLOCK_BYTES)
                if not chunk:
                    break
            if member is None:
                chunk = chunk.lstrip(padding) if padding else chunk
                if not chunk:
                    continue
                member = new_decompressor()
            block = member.decompress(chunk, BLOCK_BYTES)
            chunk = member.unused_data if member.eof else b""
            member = None if member.eof else member
            if block:
                yield block
        if member is not None:
            raise EOFError("it ends inside a member")

    return read


_READERS: dict[Compression, Callable[[BinaryIO], Iterator[bytes]]] = {
    "": _whole(lambda file: file),
    "gz": _whole(lambda file: igzip.IGzipFile(fileobj=file)),
    "zst": _members(lambda: zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)),
    "xz": _members(lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES), b"\0"),
    "bz2": _members(bz2.BZ2Decompressor),
}


def split_lines(
    blocks: Iterable[bytes], *, at: int = 0, max_line_bytes: int = MAX_DOCUMENT_BYTES
) -> Iterator[Piece]:
    """Lines without their newline, across blocks, with the byte at which each starts.

    The blocks begin at the start of a line, byte ``at``. A line that is too long is replaced by its
    size in bytes. The last line needs no newline. At most ``max_line_bytes`` and one block are held
    in memory.
    """
    held: list[bytes] = []
    line_bytes = 0
    for block in blocks:
        if not line_bytes and block.isspace():
            # Skip blank lines together: a file of blank lines must not take hours.
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


def kept_text(value: Any) -> str | None:
    """A kept field as text: numbers, lists and objects as in JSON; None stays None.

    Halves of surrogate pairs, which UTF-8 lacks, become escapes.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        is_json = isinstance(value, (bool, int, float, list, dict))
        value = json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)
    return value if is_unicode(value) else value.encode(errors="backslashreplace").decode()


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded in UTF-8, which halves of surrogate pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_unambiguous(name: str, names: list[str], location: str) -> None:
    """Raise an ``InputError`` if several columns of a file have the same name."""
    if names.count(name) > 1:
        raise InputError(
            f"{location}: there are {names.count(name)} columns {name!r}, expected one: the name "
            f"is ambiguous. Give the column with the texts a unique name."
        )
