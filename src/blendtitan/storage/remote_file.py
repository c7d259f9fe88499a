"""Files of shards in object storage, in place of opened local files."""

import functools
import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.files import url_of
from blendtitan.remote import Found, changed_error, find, head, read_range
from blendtitan.storage.failed_reads import missing_error
from blendtitan.storage.reader import FileSignature, OpenFile

# A request takes as long as reading this much: closer ranges are read together.
_NEAR_BYTES = 1 << 14
_MOST_REQUESTS = 64

_BLOCK_BYTES = 1 << 16
_MOST_BLOCKS = 64


def signature(prefix: str, *, again: bool = True) -> FileSignature | None:
    """The signature of a shard. None: a file is missing, or the store fails.

    Without ``again``, its files need not be looked up again.
    """
    prefix = url_of(prefix) or prefix
    if prefix.count("/") < 3:
        return None  # a bucket
    urls = [f"{prefix}.idx", f"{prefix}.bin"]
    try:
        if again:
            find(urls)
        idx, tokens = map(head, urls)
    except OSError:
        return None
    return FileSignature(
        *(idx.num_bytes, _number(idx.version), tokens.num_bytes, _number(tokens.version)),
        *(_number(prefix), 0),
    )


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class RemoteFile(OpenFile):
    """A file of a store. Nothing is kept open; the library keeps its connections.

    Of an ``.idx``, whose entries are read a few at a time, blocks are read and kept.
    """

    __slots__ = ("_blocks", "found")

    _blocks: dict[int, bytes]
    found: Found

    @classmethod
    def find(cls, path: str) -> Self:
        """The file of a URL. Errors are those of ``remote.head``."""
        url = url_of(path) or path
        found = head(url)
        file = cls(url, -1, found.num_bytes)
        file.found, file._blocks = found, {}
        return file

    def __del__(self) -> None:
        pass

    def ranges(self, at: int, num_bytes: int) -> "Iterable[Range]":
        """The ranges to request before a read."""
        return [Range(self, at, num_bytes)]

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """As ``OpenFile.read_into``."""
        buffer.data.cast("B")[:] = self._bytes(at, buffer.nbytes)

    def fetch(self, at: int, num_bytes: int) -> bytes:
        """Bytes from offset ``at`` on, in one request. Errors are those of ``read_into``."""
        try:
            data = read_range(self.path, at, num_bytes, self.found) if num_bytes else b""
        except OSError as error:
            raise missing_error(self.path, "read", error) from error
        if len(data) != num_bytes:
            raise CorruptShardError(
                f"{self.path}: ends at byte {at + len(data):,}, expected at least "
                f"{at + num_bytes:,}. The file was truncated or replaced: copy it again."
            )
        return data

    def _bytes(self, at: int, num_bytes: int) -> memoryview | bytes:
        if self.path.endswith(".idx") and num_bytes <= _BLOCK_BYTES:
            first, last = at // _BLOCK_BYTES, (at + num_bytes - 1) // _BLOCK_BYTES
            data = b"".join(self._block(number) for number in range(first, last + 1))
            return memoryview(data)[at - first * _BLOCK_BYTES :][:num_bytes]
        for start, block in _ahead.blocks.get((self.path, self.found), ()):
            if start <= at and at + num_bytes <= start + len(block):
                return memoryview(block)[at - start :][:num_bytes]
        return self.fetch(at, num_bytes)

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            at = number * _BLOCK_BYTES
            block = self.fetch(at, max(0, min(_BLOCK_BYTES, self.num_bytes - at)))
            while len(self._blocks) >= _MOST_BLOCKS:
                self._blocks.pop(next(iter(self._blocks)), None)
            self._blocks[number] = block
        return block


def check_version(file: OpenFile, expected: int) -> None:
    """Check that a file is the one of the catalog, which another process may have built.

    ``expected`` is its number in the catalog. 0: the file is local, or the number is not known.

    Raises:
        CorruptShardError: It was replaced since.
    """
    if expected and isinstance(file, RemoteFile) and _number(file.found.version) != expected:
        raise changed_error(file.path)


class _Ahead(threading.local):
    """What a thread has read ahead, by file: byte offsets and content."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[str, Found], list[tuple[int, bytes]]] = {}


_ahead = _Ahead()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_REQUESTS, "blendtitan-fetch")


os.register_at_fork(after_in_child=_threads.cache_clear)


class Range(NamedTuple):
    """Bytes of a file that are about to be read."""

    file: RemoteFile
    at: int
    num_bytes: int


def fetch_ahead(ranges: Sequence[Range]) -> None:
    """Read ranges all at once. This thread's reads find them, until the next call."""
    reading = [
        (each, _threads().submit(each.file.fetch, each.at, each.num_bytes))
        for each in _joined(ranges)
    ]
    _ahead.blocks = {}
    for (file, at, _), future in reading:
        # An error is left to the reader, which knows the sample.
        if future.exception() is None:
            _ahead.blocks.setdefault((file.path, file.found), []).append((at, future.result()))


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Ranges that overlap, or nearly touch, as one."""
    joined: list[Range] = []
    for each in sorted(ranges, key=lambda each: (each.file.path, each.at)):
        file, at, num_bytes = joined[-1] if joined else each
        if joined and file.path == each.file.path and each.at <= at + num_bytes + _NEAR_BYTES:
            end = max(at + num_bytes, each.at + each.num_bytes)
            joined[-1] = Range(file, at, end - at)
        else:
            joined.append(each)
    return joined
