"""The decompressed content of an input file, in blocks of bounded size.

A few bytes may decompress to any amount. No reader holds more than one decompressed block, and
each detects a file that ends too early.
"""

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from isal import igzip
from isal.igzip_lib import IsalError

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import Compression, InputFile, readable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 18

# Large corpora are compressed with `zstd --long=31`. Files with smaller windows need less memory.
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}
# The largest dictionary that `xz -9` uses is 64 MiB; xz files may ask for 4 GiB.
_MAX_XZ_BYTES = 1 << 30
_DAMAGE: tuple[type[Exception], ...] = (
    *(EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError),
    IsalError,  # pyright: ignore[reportAssignmentType]
)


def read_blocks(
    file: InputFile, *, start: int = 0, advance: Callable[[int], None] = lambda _: None
) -> Iterator[bytes]:
    """The content of a file from byte ``start`` on, decompressed according to its name.

    Args:
        file: A file of any format.
        start: First byte, as stored.
        advance: Called with the number of bytes, as stored, that were read.

    Raises:
        InputError: The file cannot be read or decompressed, or ends too early.
    """
    compression = file.format.compression
    position = start
    with readable(file.location):
        try:
            if compression and file.num_bytes == 0:
                # Compressed nothing is not empty; an empty file is a copy that never started.
                raise EOFError("the file is empty")
            with file.open() as opened:
                opened.seek(start)
                for block in _READERS[compression](opened):
                    advance(opened.tell() - position)
                    position = opened.tell()
                    yield block
        except InputError:
            raise
        except _DAMAGE as error:
            raise _damaged(file, error) from error
        except OSError as error:
            # The bz2 module has no exception of its own.
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
    """The interface that the decompressors of the standard library share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _members(
    new_decompressor: Callable[[], _Decompressor], padding: bytes = b""
) -> Callable[[BinaryIO], Iterator[bytes]]:
    """A reader of one member or frame after the other, with optional padding between them."""

    def read(file: BinaryIO) -> Iterator[bytes]:
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

    return read


_READERS: dict[Compression, Callable[[BinaryIO], Iterator[bytes]]] = {
    "": _plain_blocks,
    "gz": _gzip_blocks,
    "zst": _members(lambda: zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)),
    "xz": _members(lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES), b"\0"),
    "bz2": _members(bz2.BZ2Decompressor),
}
