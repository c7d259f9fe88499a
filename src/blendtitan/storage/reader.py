"""Shards read at given positions: no memory maps, a bounded number of open files.

The ``.idx`` is checked when it is opened, and its entries are read on demand.
"""

import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.files import open_regular, url_of, with_retries
from blendtitan.storage.index_format import HEADER, IndexHeader, decode_header

# Small files are read whole with their header.
_HEAD_BYTES = 4096

_ENTRY = struct.Struct("<q")
_LAST_LEN_AND_FIRST_POINTER = struct.Struct("<iq")
_PAIR = struct.Struct("<qq")


class FileSignature(NamedTuple):
    """Sizes and modification times of the two files of a shard.

    Equal signatures mean unchanged files. On a network, one costs a round trip per file.
    """

    idx_bytes: int
    idx_changed_ns: int
    bin_bytes: int
    bin_changed_ns: int
    bin_device: int
    bin_inode: int

    @classmethod
    def of_files(cls, idx: os.stat_result, tokens: os.stat_result) -> Self:
        """The signature of an ``.idx`` and a ``.bin``."""
        return cls(
            *(idx.st_size, idx.st_mtime_ns, tokens.st_size, tokens.st_mtime_ns),
            *(tokens.st_dev, tokens.st_ino),
        )

    @property
    def contents(self) -> tuple[int, int, int, int]:
        """Sizes and times of change of both files."""
        return self[:4]

    @property
    def bin_file(self) -> tuple[int, int]:
        """Equal for two paths that lead to one ``.bin``."""
        return self[4:]


def file_signature(prefix: str) -> FileSignature | None:
    """The signature of a shard. None: a file is missing, or the file system fails."""
    if url_of(prefix):
        from blendtitan.storage.remote_file import signature

        return signature(prefix)
    try:
        return FileSignature.of_files(os.stat(f"{prefix}.idx"), os.stat(f"{prefix}.bin"))
    except OSError:
        return None


class OpenFile:
    """A file opened for reading, and closed with the last reference to it.

    Reads that fail with a passing error are repeated after opening the file again, because a file
    server that was away has forgotten its open files.
    """

    __slots__ = ("fd", "num_bytes", "path")

    def __init__(self, path: str, fd: int, num_bytes: int) -> None:
        self.path = path
        self.fd = fd
        self.num_bytes = num_bytes
        """Size of the file when it was opened."""

    @classmethod
    def open(cls, path: str) -> "OpenFile":
        """Open ``path``, a path or URL.

        Raises:
            MissingShardError: It cannot be opened.
        """
        try:
            if url_of(path):
                from blendtitan.storage.remote_file import RemoteFile

                return RemoteFile.find(path)
            return cls(path, *with_retries(lambda: open_regular(path), path=path))
        except OSError as error:
            from blendtitan.storage.failed_reads import missing_error

            raise missing_error(path, "opened", error) from error

    def __del__(self) -> None:
        os.close(self.fd)

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """Fill ``buffer``, which is contiguous, with the bytes from byte offset ``at`` on.

        Raises:
            CorruptShardError: The file ends before that, or its size has changed.
            MissingShardError: It cannot be read.
        """
        try:
            found: int | OSError = os.preadv(self.fd, [buffer.data], at)
        except OSError as error:
            found = error
        if found != buffer.nbytes:
            from blendtitan.storage.failed_reads import complete_read

            complete_read(self, buffer.data.cast("B"), found, at=at)

    def read(self, num_bytes: int, *, at: int) -> bytes:
        """Exactly ``num_bytes`` bytes from byte offset ``at`` on; errors as ``read_into``."""
        data = np.empty(num_bytes, np.uint8)
        self.read_into(data, at=at)
        return data.tobytes()


class OpenFiles:
    """The most recently used files, at most ``max_open`` of them. Threads may share it.

    A file that is evicted while a thread reads it stays open until that read ends.
    """

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._opened: Callable[[str], OpenFile] = OpenFile.open
        self._files: dict[str, OpenFile] = {}
        self._lock = threading.Lock()

    def reopen(self, opened: Callable[[str], OpenFile] = OpenFile.open) -> None:
        """Open each file anew at its next use, and from then on by ``opened``."""
        with self._lock:
            self._opened = opened
            self._files.clear()

    def open(self, path: str, expected_bytes: Callable[[], int]) -> OpenFile:
        """The open file of ``path``, opened now if needed.

        Raises:
            MissingShardError: It cannot be opened.
            CorruptShardError: It was opened now, and its size is not ``expected_bytes()``.
        """
        file = self._files.get(path)
        if file is not None and len(self._files) < self._max_open:
            return file  # While there is room, the order of use does not matter.
        with self._lock:
            file = self._files.pop(path, None)
            if file is not None:
                self._files[path] = file
                return file
        # Without the lock, because opening is slow on a network, and would block other threads.
        file = self._opened(path)
        check_size(path, file.num_bytes, expected_bytes())
        with self._lock:
            self._files.pop(path, None)
            if len(self._files) >= self._max_open:
                self._files.pop(next(iter(self._files)))
            self._files[path] = file
        return file


@dataclass(slots=True)
class ShardIndex:
    """An opened ``.idx`` file, checked against its ``.bin``."""

    prefix: Path | str
    header: IndexHeader
    num_tokens: int
    file: OpenFile
    head: bytes = b""
    """The first bytes of the file that were read when it was opened."""

    start: int = 0
    """Offset of the first document. The ``.bin`` of another program may begin with a header."""

    @classmethod
    def open(cls, prefix: Path | str, *, bin_bytes: int | None = None) -> Self:
        """Open and check the ``.idx`` of a shard, and the size of its ``.bin``.

        Args:
            prefix: Path of the shard without its suffix.
            bin_bytes: Size of the ``.bin``. None: ask the file system.

        Raises:
            MissingShardError: One of the two files is absent or cannot be read.
            CorruptShardError: A field, the first and last entries, or the sizes contradict each
                other, or the shard is empty.
        """
        file = OpenFile.open(f"{prefix}.idx")
        header, head = read_head(file)
        index = cls(prefix, header, 0, file, head)
        if bin_bytes is None:
            from blendtitan.storage.failed_reads import size_of

            bin_bytes = size_of(f"{prefix}.bin")
        index._count_tokens(bin_bytes)
        return index

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return self.header.num_documents

    @property
    def stop(self) -> int:
        """Offset of the end."""
        return self.start + self.num_tokens

    @property
    def dtype(self) -> np.dtype[Any]:
        """Token type in the ``.bin``."""
        return self.header.dtype

    def document_start(self, document_id: int) -> int:
        """Offset in the ``.bin``, in tokens, of a document; of the end for ``num_documents``.

        Raises:
            CorruptShardError: The entry points outside the shard.
        """
        # Both ends were checked when the file was opened.
        if document_id == 0:
            return self.start
        if document_id == self.num_documents:
            return self.stop
        header = self.header
        sequence_id = self.entry(header.documents_at, document_id)
        if not 0 <= sequence_id <= header.num_sequences:
            raise self.corrupt(
                f"document {document_id} starts at sequence {sequence_id}",
                f"0 to {header.num_sequences}",
            )
        if sequence_id == header.num_sequences:
            return self.stop
        pointer = self.entry(header.pointers_at, sequence_id)
        token_bytes = header.dtype.itemsize
        start, remainder = divmod(pointer, token_bytes)
        if remainder or not self.start <= start <= self.stop:
            raise self.corrupt(
                f"sequence {sequence_id} starts at byte {pointer}",
                f"a multiple of {token_bytes} up to {self.stop * token_bytes}",
            )
        return start

    def document_starts(self, first: int, last: int) -> NDArray[np.int64]:
        """As ``index_arrays.document_starts``."""
        from blendtitan.storage.index_arrays import document_starts

        return document_starts(self, first, last)

    def entry(self, array_at: int, number: int) -> int:
        """One entry of the array of 64-bit integers that begins at byte ``array_at``."""
        return _ENTRY.unpack(self.read(8, at=array_at + 8 * number))[0]

    def entries(self, array_at: int, start: int, stop: int) -> NDArray[np.int64]:
        """Entries ``start`` to ``stop - 1`` of such an array."""
        data = self.read(8 * (stop - start), at=array_at + 8 * start)
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)

    def read(self, num_bytes: int, *, at: int) -> bytes:
        """Bytes of the ``.idx`` from offset ``at`` on."""
        end = at + num_bytes
        return self.head[at:end] if end <= len(self.head) else self.file.read(num_bytes, at=at)

    def corrupt(self, found: str, expected: str) -> CorruptShardError:
        """The error for an impossible entry."""
        return CorruptShardError.of_index(self.file.path, found, expected)

    def _count_tokens(self, bin_bytes: int) -> None:
        """Check the size of the ``.bin`` against the ends of the arrays, and set ``num_tokens``."""
        header, token_bytes = self.header, self.dtype.itemsize
        if header.num_documents and header.num_sequences and bin_bytes:
            # The arrays are end to end: the end of one is read with the beginning of the next.
            ends = self.read(12, at=header.pointers_at - 4)
            last_len, first_pointer = _LAST_LEN_AND_FIRST_POINTER.unpack(ends)
            last_pointer, first_sequence = _PAIR.unpack(self.read(16, at=header.documents_at - 8))
            last_sequence = self.entry(header.documents_at, header.num_documents)
            found = (first_sequence, last_sequence, bin_bytes % token_bytes, bin_bytes)
            expected = (0, header.num_sequences, 0, last_pointer + last_len * token_bytes)
            is_whole = last_len >= 0 and found == expected
            if is_whole and first_pointer:
                from blendtitan.storage.shard_faults import has_header

                is_whole = has_header(self, first_pointer, bin_bytes)
            if is_whole:
                self.start = first_pointer // token_bytes
                self.num_tokens = bin_bytes // token_bytes - self.start
                return
        from blendtitan.storage.shard_faults import size_fault

        raise size_fault(self, bin_bytes)


def read_head(file: OpenFile, *, may_have_modes: bool = False) -> tuple[IndexHeader, bytes]:
    """The header of an opened ``.idx`` file, checked by ``decode_header``, and bytes read with it.

    Raises:
        CorruptShardError: A field has a value that the format does not allow, or the file is
            not as long as its header says.
    """
    head = file.read(min(_HEAD_BYTES, file.num_bytes), at=0)
    header = decode_header(
        head[: HEADER.size],
        file_bytes=file.num_bytes,
        path=file.path,
        may_have_modes=may_have_modes,
    )
    return header, head


def check_size(path: str, found: int, expected: int) -> None:
    """Check that a file has the expected size, in bytes."""
    if found != expected:
        raise CorruptShardError(
            f"{path}: found {found:,} bytes, expected {expected:,}. The file was truncated or "
            f"replaced: copy both files again, or tokenise the shard again."
        )


def grows(numbers: NDArray[np.int64], most: int) -> bool:
    """Whether numbers never fall, from 0 or more to ``most``."""
    # Compared, not subtracted: differences could overflow.
    is_within = numbers[0] >= 0 and numbers[-1] <= most
    return bool(is_within and (numbers[1:] >= numbers[:-1]).all())
