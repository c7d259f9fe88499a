"""The content of an input file, decompressed, in blocks of a bounded size.

A file of a few bytes may decompress to any number. No reader here holds more than a block of what
it decompresses, and each notices a file that ends too early.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import zstandard
from isal import igzip
from isal.igzip_lib import IsalError

from blendtitan.errors import InputError
from blendtitan.prepare.file_formats import Compression
from blendtitan.prepare.input_file import InputFile, readable

BLOCK_BYTES = 1 << 18

# Large corpora are compressed with `zstd --long=31`; smaller windows cost no more memory for it.
_MAX_ZSTD_WINDOW = 1 << 31
# The largest dictionary that `xz -9` uses is 64 MiB; xz files may ask for 4 GiB.
_MAX_XZ_BYTES = 1 << 30
_DAMAGE: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    IsalError,  # pyright: ignore[reportAssignmentType]
    gzip.BadGzipFile,
    lzma.LZMAError,
    zstandard.ZstdError,
)


def read_blocks(
    file: InputFile, *, start: int = 0, advance: Callable[[int], None] = lambda _: None
) -> Iterator[bytes]:
    """Contents of a file from byte ``start`` on, decompressed as its name says, in blocks.

    Args:
        file: A file of any format.
        start: First byte, as stored.
        advance: Called with the number of bytes, as stored, that were read.

    Raises:
        InputError: The file cannot be read or decompressed, or ends too early.
    """
    compression = file.format.compression
    at = start
    with readable(file.location):
        try:
            if compression and file.num_bytes == 0:
                # Compressing nothing gives some bytes; zero bytes are a copy that never started.
                raise EOFError("the file is empty")
            with file.open() as opened:
                opened.seek(start)
                for block in _READERS[compression](opened):
                    advance(opened.tell() - at)
                    at = opened.tell()
                    yield block
        except InputError:
            raise
        except _DAMAGE as error:
            raise _damaged(file, error) from error
        except OSError as error:
            # The bz2 module has no error of its own.
            if compression != "bz2" or error.errno is not None:
                raise
            raise _damaged(file, error) from error


def _damaged(file: InputFile, error: Exception) -> InputError:
    return InputError(
        f"{file.location}: the compressed data cannot be read: {error}. The copy is "
        f"incomplete or damaged: copy or compress the file again."
    )


def _plain_blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def _gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    with igzip.IGzipFile(fileobj=file) as members:
        while block := members.read(BLOCK_BYTES):
            yield block


class _Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _xz_blocks(file: BinaryIO) -> Iterator[bytes]:
    return _member_blocks(file, lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES), b"\0")


def _bz2_blocks(file: BinaryIO) -> Iterator[bytes]:
    return _member_blocks(file, bz2.BZ2Decompressor, b"")


def _member_blocks(
    file: BinaryIO, new_decompressor: Callable[[], _Decompressor], padding: bytes
) -> Iterator[bytes]:
    """Member by member; between members may lie padding."""
    member: _Decompressor | None = None
    chunk = b""
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


def _zstd_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Frame by frame, of any number of frames.

    The reader of zstandard bounds what it returns, but takes a truncated file for a whole one. So
    a frame with known content is read after the file's own, which is there only if those are
    whole.
    """
    source = _WithEnd(file)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    reader = decompressor.stream_reader(source, read_across_frames=True)  # pyright: ignore
    held = b""
    while block := _read_frames(reader, source):
        held += block
        if len(held) > len(_END):
            yield held[: -len(_END)]
            held = held[-len(_END) :]
    if held != _END or not source.is_finished:
        raise EOFError("it ends inside a frame")


def _read_frames(reader: Any, source: "_WithEnd") -> bytes:
    try:
        return reader.read(BLOCK_BYTES)
    except zstandard.ZstdError as error:
        if not source.is_finished:
            raise
        # The end was taken for content: what the library says of it is of no use to anyone.
        raise EOFError("it ends inside a frame, or is damaged") from error


_END = b"end of the input file"

# The checksum lies behind the content, so that the frame's bytes themselves do not end like it.
_END_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(_END)


class _WithEnd:
    """A file, followed by a frame that ends it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_finished = False

    def read(self, num_bytes: int) -> bytes:
        """The next bytes."""
        if chunk := self._file.read(num_bytes):
            return chunk
        if self.is_finished:
            return b""
        self.is_finished = True
        return _END_FRAME


_READERS: dict[Compression, Callable[[BinaryIO], Iterator[bytes]]] = {
    "": _plain_blocks,
    "gz": _gzip_blocks,
    "zst": _zstd_blocks,
    "xz": _xz_blocks,
    "bz2": _bz2_blocks,
}
