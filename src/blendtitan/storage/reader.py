"""Reading shards with positioned reads: no memory maps, a bounded number of open files."""

import errno
import os
import struct
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MissingShardError, UncountedEodError
from blendtitan.storage.index_format import HEADER, IndexHeader, decode_header

_LAST_LEN_AND_FIRST_POINTER = struct.Struct("<iq")
_LAST_POINTER_AND_FIRST_SEQUENCE = struct.Struct("<qq")


class OpenFile:
    """A file opened for reading. It is closed when the last reference to it goes."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def open(cls, path: str) -> Self:
        """Open ``path``.

        Raises:
            MissingShardError: It cannot be opened.
        """
        try:
            return cls(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise MissingShardError(
                f"{path}: cannot be opened ({error.strerror}). {_advice(path, error)}"
            ) from error

    def __del__(self) -> None:
        os.close(self.fd)

    @property
    def num_bytes(self) -> int:
        """Present size of the file."""
        return os.fstat(self.fd).st_size

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """Fill ``buffer``, which is contiguous, with the bytes from byte offset ``at`` on.

        Raises:
            CorruptShardError: The file ends before that.
            MissingShardError: It cannot be read.
        """
        try:
            found = os.preadv(self.fd, [buffer.data], at)
            if found < buffer.nbytes:
                self._read_rest(buffer.data.cast("B"), found, at=at)
        except OSError as error:
            raise self._unreadable(error, at) from error

    def read(self, num_bytes: int, *, at: int) -> bytes:
        """Exactly ``num_bytes`` bytes from byte offset ``at`` on; errors as ``read_into``."""
        try:
            data = os.pread(self.fd, num_bytes, at)
        except OSError as error:
            raise self._unreadable(error, at) from error
        if len(data) == num_bytes:
            return data
        buffer = np.empty(num_bytes, dtype=np.uint8)
        self.read_into(buffer, at=at)
        return buffer.tobytes()

    def _unreadable(self, error: OSError, at: int) -> MissingShardError:
        return MissingShardError(
            f"{self.path}: cannot be read at byte {at:,} ({error.strerror}). "
            f"Check the file and the disk or network that it is on."
        )

    def _read_rest(self, buffer: memoryview, found: int, *, at: int) -> None:
        # A positioned read may return less than asked for, on a network or after a signal.
        while found < len(buffer):
            more = os.preadv(self.fd, [buffer[found:]], at + found)
            if more == 0:
                raise CorruptShardError(
                    f"{self.path}: ends at byte {at + found:,}, expected at least "
                    f"{at + len(buffer):,}. The file was truncated or replaced: copy it again."
                )
            found += more


class OpenFiles:
    """The most recently used files, at most ``max_open`` of them. Safe to share by threads.

    A file that is pushed out while a thread still reads it stays open until that read ends.
    """

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._files: dict[str, OpenFile] = {}
        self._lock = threading.Lock()

    def open(self, path: str, expected_bytes: Callable[[], int]) -> OpenFile:
        """The open file of ``path``, opened now if need be.

        Raises:
            MissingShardError: It cannot be opened.
            CorruptShardError: Opened now, its size is not ``expected_bytes()``.
        """
        with self._lock:
            file = self._files.pop(path, None)
            if file is not None:
                self._files[path] = file
                return file
        # Without the lock: on a network this takes long, and other threads have work to do.
        file = OpenFile.open(path)
        check_size(file, expected_bytes())
        with self._lock:
            self._files.pop(path, None)
            if len(self._files) >= self._max_open:
                self._files.pop(next(iter(self._files)))
            self._files[path] = file
        return file


@dataclass(slots=True)
class ShardIndex:
    """An opened ``.idx`` file, checked against its ``.bin``; entries are read when asked for."""

    prefix: Path
    header: IndexHeader
    num_tokens: int
    file: OpenFile

    @classmethod
    def open(cls, prefix: Path) -> Self:
        """Open and check the ``.idx`` of a shard, and the size of its ``.bin``.

        Raises:
            MissingShardError: One of the two files is absent or cannot be read.
            CorruptShardError: A field, the first and last entries, or the sizes contradict each
                other, or the shard is empty.
        """
        file = OpenFile.open(f"{prefix}.idx")
        index = cls(prefix, read_header(file), 0, file)
        index.num_tokens = index._checked_num_tokens()
        return index

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return self.header.num_documents

    @property
    def dtype(self) -> np.dtype[Any]:
        """Token type in the ``.bin``."""
        return self.header.dtype

    def document_start(self, document_id: int) -> int:
        """Offset in the shard, in tokens, of a document; of the end for ``num_documents``.

        Raises:
            CorruptShardError: The entry points outside the shard.
        """
        # Both ends were checked when the file was opened.
        if document_id == 0:
            return 0
        if document_id == self.num_documents:
            return self.num_tokens
        sequence_id = self._entry(self.header.documents_at, document_id)
        if not 0 <= sequence_id <= self.header.num_sequences:
            raise self._corrupt(
                f"document {document_id} starts at sequence {sequence_id}",
                f"0 to {self.header.num_sequences}",
            )
        if sequence_id == self.header.num_sequences:
            return self.num_tokens
        pointer = self._entry(self.header.pointers_at, sequence_id)
        start, remainder = divmod(pointer, self.dtype.itemsize)
        if remainder or not 0 <= start <= self.num_tokens:
            raise self._corrupt(
                f"sequence {sequence_id} starts at byte {pointer}",
                f"a multiple of {self.dtype.itemsize} up to "
                f"{self.num_tokens * self.dtype.itemsize}",
            )
        return start

    def sequence_span(self, sequence_id: int) -> tuple[int, int]:
        """Offsets in the shard, in tokens, at which a sequence starts and ends.

        Raises:
            CorruptShardError: They lie outside the shard, or in the wrong order.
        """
        # In one read. The last sequence ends with the shard.
        stop = min(sequence_id + 2, self.header.num_sequences)
        pointers = self._entries(self.header.pointers_at, sequence_id, stop).tolist()
        end_bytes = self.num_tokens * self.dtype.itemsize
        start, end = pointers if len(pointers) == 2 else (pointers[0], end_bytes)
        if (start | end) % self.dtype.itemsize or not 0 <= start <= end <= end_bytes:
            raise self._corrupt(
                f"sequence {sequence_id} lies at bytes {start} to {end}",
                f"growing multiples of {self.dtype.itemsize} up to {end_bytes}",
            )
        return start // self.dtype.itemsize, end // self.dtype.itemsize

    def document_starts(self, first: int, last: int) -> NDArray[np.int64]:
        """Offsets in the shard of documents ``first`` to ``last``, in tokens.

        Shape ``(last - first + 1,)``. ``last`` may be ``num_documents``.
        """
        sequences = self._entries(self.header.documents_at, first, last + 1)
        stop = min(int(sequences[-1]) + 1, self.header.num_sequences)
        low = int(sequences[0])
        if low < 0 or sequences[-1] > self.header.num_sequences or np.any(np.diff(sequences) < 0):
            raise self._corrupt(
                f"documents {first} to {last} start at sequences that go backwards",
                f"growing numbers up to {self.header.num_sequences}",
            )
        pointers = self._entries(self.header.pointers_at, low, max(stop, low))
        if np.any(pointers % self.dtype.itemsize):
            raise self._corrupt(
                f"a sequence of documents {first} to {last} starts at an odd byte",
                f"multiples of {self.dtype.itemsize}",
            )
        ends = np.append(pointers // self.dtype.itemsize, self.num_tokens)
        starts = ends[np.minimum(sequences - low, len(ends) - 1)]
        if np.any(np.diff(starts) < 0) or starts[0] < 0 or starts[-1] > self.num_tokens:
            raise self._corrupt(
                f"documents {first} to {last} start at offsets that go backwards",
                f"growing offsets up to {self.num_tokens}",
            )
        return starts

    def document_at(self, offset: int) -> int:
        """The document that holds the token at ``offset``, found by bisection in the file."""
        return bisect_right(range(self.num_documents), offset, key=self.document_start) - 1

    def _checked_num_tokens(self) -> int:
        """Tokens by the size of the ``.bin``, checked against the ends of the ``.idx`` arrays."""
        header, path, bin_path = self.header, self.file.path, f"{self.prefix}.bin"
        name, bin_name = os.path.basename(path), os.path.basename(bin_path)
        try:
            bin_bytes = os.stat(bin_path).st_size
        except OSError as error:
            raise MissingShardError(
                f"{bin_path}: cannot be read ({error.strerror}). {_advice(bin_path, error)}"
            ) from error
        if header.num_documents == 0 or header.num_sequences == 0 or bin_bytes == 0:
            raise CorruptShardError(
                f"{path}: the shard is empty ({header.num_documents} documents, "
                f"{header.num_sequences} sequences, {bin_bytes} bytes in {bin_name}). Delete "
                f"it, or its line in the file list."
            )
        # The arrays lie end to end, so the end of one is read with the beginning of the next.
        ends = self.file.read(12, at=header.pointers_at - 4)
        last_len, first_pointer = _LAST_LEN_AND_FIRST_POINTER.unpack(ends)
        ends = self.file.read(16, at=header.documents_at - 8)
        last_pointer, first_sequence = _LAST_POINTER_AND_FIRST_SEQUENCE.unpack(ends)
        expected = last_pointer + last_len * header.dtype.itemsize
        if expected + header.num_documents * header.dtype.itemsize == bin_bytes:
            raise UncountedEodError(
                f"{path}: its lengths sum to {expected:,} bytes, but {bin_name} has "
                f"{bin_bytes:,}: one token more for each of {header.num_documents:,} documents. "
                f"The EODs were appended without being counted, so every document boundary is "
                f"off. To count them: blendtitan repair {self.prefix} --eod-id ID"
            )
        if bin_bytes != expected or last_len < 0 or bin_bytes % header.dtype.itemsize:
            raise CorruptShardError(
                f"{bin_path}: found {bin_bytes:,} bytes, expected {expected:,} (the last sequence "
                f"of {name} has {last_len:,} tokens of {header.dtype.itemsize} bytes from "
                f"byte {last_pointer:,} on). The copy is incomplete, or the files are not a pair: "
                f"copy both again, or tokenise the shard again."
            )
        last_sequence = self._entry(header.documents_at, header.num_documents)
        if (first_pointer, first_sequence, last_sequence) != (0, 0, header.num_sequences):
            raise CorruptShardError(
                f"{path}: the first pointer and the ends of the document index are "
                f"{(first_pointer, first_sequence, last_sequence)}, expected "
                f"{(0, 0, header.num_sequences)}. Copy both files again, or tokenise the shard "
                f"again."
            )
        return bin_bytes // header.dtype.itemsize

    def _entry(self, array_at: int, number: int) -> int:
        return int.from_bytes(self.file.read(8, at=array_at + 8 * number), "little", signed=True)

    def _entries(self, array_at: int, start: int, stop: int) -> NDArray[np.int64]:
        data = self.file.read(8 * (stop - start), at=array_at + 8 * start)
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)

    def _corrupt(self, found: str, expected: str) -> CorruptShardError:
        return CorruptShardError(
            f"{self.file.path}: {found}, expected {expected}. "
            f"Copy both files again, or tokenise the shard again."
        )


def read_header(file: OpenFile) -> IndexHeader:
    """Read and check the header of an opened ``.idx`` file, and the file's size against it.

    Raises:
        CorruptShardError: A field has a value that the format does not allow, or the file is
            not as long as its header says.
    """
    num_bytes = file.num_bytes
    first = file.read(min(HEADER.size, num_bytes), at=0)
    return decode_header(first, file_bytes=num_bytes, path=Path(file.path))


def check_size(file: OpenFile, expected_bytes: int) -> None:
    """Check the present size of an open file.

    Raises:
        CorruptShardError: It is another.
    """
    if file.num_bytes != expected_bytes:
        raise CorruptShardError(
            f"{file.path}: found {file.num_bytes:,} bytes, expected {expected_bytes:,}. The file "
            f"was truncated or replaced: copy both files again, or tokenise the shard again."
        )


def _advice(path: str, error: OSError) -> str:
    """What to do about a file that cannot be opened."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Lower max_open_shards, or raise the limit of open files (ulimit -n)."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Check the permissions of the file and of its folders."
    stem, suffix = path[:-4], path[-4:]
    if stem.endswith((".bin", ".idx")):
        return f"Name the shard without {stem[-4:]}."
    other = f"{stem}{'.bin' if suffix == '.idx' else '.idx'}"
    if os.path.exists(other):
        name = os.path.basename(other)
        return f"{name} is there, so the copy is incomplete: copy both files again."
    return "Check the path in the file list; relative paths start at the list's folder."
