"""The ``.idx`` of a shard: checked when it is opened, read entry by entry."""

import errno
import os
import struct
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError, MissingShardError, UncountedEodError
from blendtitan.files import RETRIES, open_regular
from blendtitan.storage.index_format import HEADER, IndexHeader, decode_header
from blendtitan.visible import counted


class FileSignature(NamedTuple):
    """What the file system knows of the two files of a shard."""

    idx_bytes: int
    idx_changed_ns: int
    """Time of change."""
    bin_bytes: int
    bin_changed_ns: int
    bin_device: int
    bin_inode: int

    @classmethod
    def of_files(cls, idx: os.stat_result, tokens: os.stat_result) -> Self:
        """The stamp of an ``.idx`` and a ``.bin``."""
        return cls(
            *(idx.st_size, idx.st_mtime_ns, tokens.st_size, tokens.st_mtime_ns),
            *(tokens.st_dev, tokens.st_ino),
        )

    def with_idx(self, idx: os.stat_result) -> Self:
        """The stamp with another ``.idx``."""
        return self._replace(idx_bytes=idx.st_size, idx_changed_ns=idx.st_mtime_ns)

    @property
    def contents(self) -> tuple[int, int, int, int]:
        """Sizes and times of change of both files."""
        return self[:4]

    @property
    def bin_file(self) -> tuple[int, int]:
        """Equal for two paths that lead to one ``.bin``."""
        return self[4:]


def file_signature(prefix: str) -> FileSignature | None:
    """The stamp of a shard. None: one of its files is missing, or cannot be asked for."""
    try:
        return FileSignature.of_files(os.stat(f"{prefix}.idx"), os.stat(f"{prefix}.bin"))
    except OSError:
        return None


class OpenFile:
    """A file opened for reading. It is closed when the last reference to it goes.

    Reads that fail with an error that may pass are tried again, on the file opened anew: a file
    server that was away does not know what was open before.
    """

    __slots__ = ("fd", "num_bytes", "path")

    def __init__(self, path: str, fd: int, num_bytes: int) -> None:
        self.path = path
        self.fd = fd
        self.num_bytes = num_bytes
        """Size of the file when it was opened."""

    @classmethod
    def open(cls, path: str) -> Self:
        """Open ``path``.

        Raises:
            MissingShardError: It cannot be opened.
        """
        try:
            return cls(path, *RETRIES.tried(lambda: open_regular(path), path=path))
        except OSError as error:
            raise MissingShardError(
                f"{path}: cannot be opened ({RETRIES.described(error)}). {_advice(path, error)}"
            ) from error

    def __del__(self) -> None:
        os.close(self.fd)

    def read_into(self, buffer: NDArray[np.integer], *, at: int) -> None:
        """Fill ``buffer``, which is contiguous, with the bytes from byte offset ``at`` on.

        Raises:
            CorruptShardError: The file ends before that, or has another size by now.
            MissingShardError: It cannot be read.
        """
        try:
            found = os.preadv(self.fd, [buffer.data], at)
            if found < buffer.nbytes:
                self._read_rest(buffer.data.cast("B"), found, at=at)
        except OSError as error:
            self._read_again(buffer.data.cast("B"), error, at=at)

    def read(self, num_bytes: int, *, at: int) -> bytes:
        """Exactly ``num_bytes`` bytes from byte offset ``at`` on; errors as ``read_into``."""
        try:
            data = os.pread(self.fd, num_bytes, at)
            if len(data) == num_bytes:
                return data
            buffer = bytearray(num_bytes)
            self._read_rest(memoryview(buffer), 0, at=at)
        except OSError as error:
            buffer = bytearray(num_bytes)
            self._read_again(memoryview(buffer), error, at=at)
        return bytes(buffer)

    def _read_rest(self, buffer: memoryview, found: int, *, at: int) -> None:
        # A positioned read may return less than asked for, on a network or after a signal.
        is_new = False
        while found < len(buffer):
            more = os.preadv(self.fd, [buffer[found:]], at + found)
            if more == 0 and is_new:
                raise CorruptShardError(
                    f"{self.path}: ends at byte {at + found:,}, expected at least "
                    f"{at + len(buffer):,}. The file was truncated or replaced: copy it again."
                )
            found += more
            if more == 0:
                # This file was truncated. A whole one may have its name by now.
                self._open_again()
                is_new, found = True, 0

    def _read_again(self, buffer: memoryview, error: OSError, *, at: int) -> None:
        def attempt() -> None:
            self._open_again()
            self._read_rest(buffer, 0, at=at)

        try:
            RETRIES.again(attempt, error, path=self.path)
        except OSError as last:
            raise MissingShardError(
                f"{self.path}: cannot be read at byte {at:,} ({RETRIES.described(last)}). "
                f"Check the file and the disk or network that it is on."
            ) from last

    def _open_again(self) -> None:
        fd, num_bytes = open_regular(self.path)
        try:
            if num_bytes != self.num_bytes:
                raise _another_size(self.path, num_bytes, self.num_bytes)
            # In one step: other threads read through the same descriptor.
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)


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
        file = self._files.get(path)
        if file is not None and len(self._files) < self._max_open:
            return file  # While there is room, nobody needs to know which was used last.
        with self._lock:
            file = self._files.pop(path, None)
            if file is not None:
                self._files[path] = file
                return file
        # Without the lock: on a network this takes long, and other threads have work to do.
        file = OpenFile.open(path)
        expected = expected_bytes()
        if file.num_bytes != expected:
            raise _another_size(path, file.num_bytes, expected)
        with self._lock:
            self._files.pop(path, None)
            if len(self._files) >= self._max_open:
                self._files.pop(next(iter(self._files)))
            self._files[path] = file
        return file


def size_of(path: str) -> int:
    """Size of a file in bytes.

    Raises:
        MissingShardError: It is absent, or the size cannot be read.
    """
    try:
        return RETRIES.tried(lambda: os.stat(path).st_size, path=path)
    except OSError as error:
        raise MissingShardError(
            f"{path}: cannot be read ({RETRIES.described(error)}). {_advice(path, error)}"
        ) from error


def _another_size(path: str, found: int, expected: int) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: found {found:,} bytes, expected {expected:,}. The file was truncated or "
        f"replaced: copy both files again, or tokenise the shard again."
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


# Small files are read whole with their header.
_HEAD_BYTES = 4096


# Where all entries are needed, they are read this many at a time.
_BLOCK_ENTRIES = 1 << 18


_ENTRY = struct.Struct("<q")


_LAST_LEN_AND_FIRST_POINTER = struct.Struct("<iq")


_LAST_POINTER_AND_FIRST_SEQUENCE = struct.Struct("<qq")


@dataclass(slots=True)
class ShardIndex:
    """An opened ``.idx`` file, checked against its ``.bin``; entries are read when asked for."""

    prefix: Path | str
    header: IndexHeader
    num_tokens: int
    file: OpenFile
    head: bytes = b""
    """What the file begins with, as far as it was read when it was opened."""

    @classmethod
    def open(cls, prefix: Path | str, *, bin_bytes: int | None = None) -> Self:
        """Open and check the ``.idx`` of a shard, and the size of its ``.bin``.

        Args:
            prefix: Path of the shard without its suffix.
            bin_bytes: Size of the ``.bin``; None: the file system is asked.

        Raises:
            MissingShardError: One of the two files is absent or cannot be read.
            CorruptShardError: A field, the first and last entries, or the sizes contradict each
                other, or the shard is empty.
        """
        file = OpenFile.open(f"{prefix}.idx")
        header, head = read_head(file)
        index = cls(prefix, header, 0, file, head)
        index.num_tokens = index._checked_num_tokens(bin_bytes)
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
        header = self.header
        sequence_id = self._entry(header.documents_at, document_id)
        if not 0 <= sequence_id <= header.num_sequences:
            raise self._corrupt(
                f"document {document_id} starts at sequence {sequence_id}",
                f"0 to {header.num_sequences}",
            )
        if sequence_id == header.num_sequences:
            return self.num_tokens
        pointer = self._entry(header.pointers_at, sequence_id)
        token_bytes = header.dtype.itemsize
        start, remainder = divmod(pointer, token_bytes)
        if remainder or not 0 <= start <= self.num_tokens:
            raise self._corrupt(
                f"sequence {sequence_id} starts at byte {pointer}",
                f"a multiple of {token_bytes} up to {self.num_tokens * token_bytes}",
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
        if _counts_up(sequences) and 0 <= sequences[0] <= self.header.num_sequences - last + first:
            where = f"documents {first} to {last}"
            return self._sequence_starts(int(sequences[0]), last - first + 1, where)
        if not _grows(sequences, 0, self.header.num_sequences):
            raise self._corrupt(
                f"documents {first} to {last} start at sequences that go backwards",
                f"growing numbers up to {self.header.num_sequences}",
            )
        low = int(sequences[0])
        stop = min(int(sequences[-1]) + 1, self.header.num_sequences)
        pointers = self._entries(self.header.pointers_at, low, stop)
        if np.any(pointers % self.dtype.itemsize):
            raise self._corrupt(
                f"a sequence of documents {first} to {last} starts at an odd byte",
                f"multiples of {self.dtype.itemsize}",
            )
        ends = np.append(pointers // self.dtype.itemsize, self.num_tokens)
        starts = ends[np.minimum(sequences - low, len(ends) - 1)]
        if not _grows(starts, 0, self.num_tokens):
            raise self._corrupt(
                f"documents {first} to {last} start at offsets that go backwards",
                f"growing offsets up to {self.num_tokens}",
            )
        return starts

    def _sequence_starts(self, first: int, count: int, where: str) -> NDArray[np.int64]:
        """Offsets of neighbouring sequences, in tokens; the last may be the end of the shard."""
        token_bytes = self.dtype.itemsize
        stop = min(first + count, self.header.num_sequences)
        pointers = self._entries(self.header.pointers_at, first, stop)
        starts = np.empty(count, np.int64)
        starts[-1] = self.num_tokens
        np.floor_divide(pointers, token_bytes, out=starts[: len(pointers)])
        # All sizes of tokens are powers of two.
        if int(np.bitwise_or.reduce(pointers)) % token_bytes:
            raise self._corrupt(
                f"a sequence of {where} starts at an odd byte",
                f"multiples of {token_bytes}",
            )
        if not _grows(starts, 0, self.num_tokens):
            raise self._corrupt(
                f"{where} start at offsets that go backwards",
                f"growing offsets up to {self.num_tokens}",
            )
        return starts

    def starts_of_stretches(self, firsts: Sequence[int], length: int) -> NDArray[np.int64]:
        """``document_starts(first, first + length)`` for each of ``firsts``, in few steps.

        Shape ``(len(firsts), length + 1)``.
        """
        header = self.header
        documents = b"".join(
            self._read(8 * (length + 1), at=header.documents_at + 8 * first) for first in firsts
        )
        sequences = np.frombuffer(documents, "<i8").reshape(-1, length + 1)
        low, high = sequences[:, 0].tolist(), sequences[:, -1].tolist()
        in_file = all(
            start >= 0 and stop == start + length and stop <= header.num_sequences
            for start, stop in zip(low, high, strict=True)
        )
        if not in_file or (sequences[:, 1:] <= sequences[:, :-1]).any():
            # Not one sequence each, or an entry that cannot be right.
            return np.stack([self.document_starts(first, first + length) for first in firsts])
        end = _ENTRY.pack(self.num_tokens * self.dtype.itemsize)
        pointers = b"".join(
            self._read(
                8 * (length + (stop < header.num_sequences)), at=header.pointers_at + 8 * start
            )
            + (b"" if stop < header.num_sequences else end)
            for start, stop in zip(low, high, strict=True)
        )
        found = np.frombuffer(pointers, "<i8").reshape(-1, length + 1)
        starts = found // self.dtype.itemsize
        is_odd = (starts * self.dtype.itemsize != found).any()
        if is_odd or not _grows(starts.ravel(), 0, self.num_tokens):
            raise self._corrupt(
                f"documents {firsts[0]} to {firsts[-1] + length} start at odd bytes, or at offsets "
                f"that go backwards",
                f"growing multiples of {self.dtype.itemsize} bytes",
            )
        return starts

    def document_at(self, offset: int) -> int:
        """The document that holds the token at ``offset``, found by bisection in the file."""
        return bisect_right(range(self.num_documents), offset, key=self.document_start) - 1

    def _checked_num_tokens(self, bin_bytes: int | None) -> int:
        """Tokens by the size of the ``.bin``, checked against the ends of the ``.idx`` arrays."""
        header, path, bin_path = self.header, self.file.path, f"{self.prefix}.bin"
        if bin_bytes is None:
            bin_bytes = size_of(bin_path)
        self._check_not_empty(bin_bytes)
        # The arrays lie end to end, so the end of one is read with the beginning of the next.
        ends = self._read(12, at=header.pointers_at - 4)
        last_len, first_pointer = _LAST_LEN_AND_FIRST_POINTER.unpack(ends)
        ends = self._read(16, at=header.documents_at - 8)
        last_pointer, first_sequence = _LAST_POINTER_AND_FIRST_SEQUENCE.unpack(ends)
        token_bytes = header.dtype.itemsize
        expected = last_pointer + last_len * token_bytes
        if bin_bytes != expected and self._lacks_one_token_each(bin_bytes - expected):
            raise UncountedEodError(
                f"{path}: its lengths sum to {expected:,} bytes, but "
                f"{os.path.basename(bin_path)} has {bin_bytes:,}: one token more for each of "
                f"{(bin_bytes - expected) // token_bytes:,} documents. The EODs were appended "
                f"without being counted, so every document boundary is off. To count them: "
                f"blendtitan repair {self.prefix} --eod-id ID"
            )
        if bin_bytes != expected or last_len < 0 or bin_bytes % token_bytes:
            raise CorruptShardError(
                f"{bin_path}: found {bin_bytes:,} bytes, expected {expected:,} (the last sequence "
                f"of {os.path.basename(path)} has {last_len:,} tokens of {token_bytes} bytes from "
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
        return bin_bytes // token_bytes

    def _check_not_empty(self, bin_bytes: int) -> None:
        header, path = self.header, self.file.path
        bin_name = os.path.basename(f"{self.prefix}.bin")
        held = f"{header.num_sequences:,} sequences, and {bin_name} has {bin_bytes:,} bytes"
        if header.num_documents == 0 and header.num_sequences > 0 and bin_bytes > 0:
            raise CorruptShardError(
                f"{path}: the document index has no document, but there are {held}. A program "
                f"that merged shards lost the document index; the tokens are still there. If each "
                f"sequence is one document that ends in EOD, its index can be restored: "
                f"blendtitan repair {self.prefix} --eod-id ID. Otherwise merge the original "
                f"shards again, with blendtitan merge."
            )
        if bin_bytes == 0 and not self._has_length():
            raise CorruptShardError(
                f"{path}: the shard is empty ({header.num_documents} documents, "
                f"{header.num_sequences} sequences, 0 bytes in {bin_name}). Delete it, or its "
                f"line in the file list."
            )
        if header.num_sequences == 0 or bin_bytes == 0:
            raise CorruptShardError(
                f"{path}: describes {counted(header.num_documents, 'document')} in {held}. The two "
                f"files are not a pair, or the copy is incomplete: copy both again, or tokenise "
                f"the shard again."
            )

    def _has_length(self) -> bool:
        """Whether the last sequence has a token: enough to tell an empty shard from a lost file."""
        header = self.header
        if header.num_sequences == 0:
            return False
        end = struct.unpack("<i", self._read(4, at=header.pointers_at - 4))[0]
        last_pointer = self._entry(header.pointers_at, header.num_sequences - 1)
        return bool(end or last_pointer)

    def _lacks_one_token_each(self, missing_bytes: int) -> bool:
        """Whether so many bytes are one token for each document that has a sequence."""
        missing, remainder = divmod(missing_bytes, self.dtype.itemsize)
        if remainder or not 0 < missing <= self.num_documents:
            return False
        # Megatron-LM appends no EOD to an empty text, which is a document of no sequence.
        return missing == self.num_documents or missing == self._num_with_sequences()

    def _num_with_sequences(self) -> int:
        """Documents of at least one sequence, by the whole document index."""
        count, before = 0, 0
        for first in range(1, self.num_documents + 1, _BLOCK_ENTRIES):
            stop = min(first + _BLOCK_ENTRIES, self.num_documents + 1)
            entries = self._entries(self.header.documents_at, first, stop)
            count += int(np.count_nonzero(np.append(before, entries[:-1]) != entries))
            before = int(entries[-1])
        return count

    def _entry(self, array_at: int, number: int) -> int:
        at = array_at + 8 * number
        if at + 8 <= len(self.head):
            return _ENTRY.unpack_from(self.head, at)[0]
        return _ENTRY.unpack(self.file.read(8, at=at))[0]

    def _entries(self, array_at: int, start: int, stop: int) -> NDArray[np.int64]:
        data = self._read(8 * (stop - start), at=array_at + 8 * start)
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)

    def _read(self, num_bytes: int, *, at: int) -> bytes:
        end = at + num_bytes
        return self.head[at:end] if end <= len(self.head) else self.file.read(num_bytes, at=at)

    def _corrupt(self, found: str, expected: str) -> CorruptShardError:
        return CorruptShardError(
            f"{self.file.path}: {found}, expected {expected}. "
            f"Copy both files again, or tokenise the shard again."
        )


def read_head(file: OpenFile) -> tuple[IndexHeader, bytes]:
    """The checked header of an opened ``.idx`` file, and the bytes that were read with it.

    Raises:
        CorruptShardError: A field has a value that the format does not allow, or the file is
            not as long as its header says.
    """
    head = file.read(min(_HEAD_BYTES, file.num_bytes), at=0)
    return decode_header(head[: HEADER.size], file_bytes=file.num_bytes, path=file.path), head


def _counts_up(numbers: NDArray[np.int64]) -> bool:
    """Whether each number is the one before it plus 1: every document is one sequence."""
    return bool(numbers[-1] - numbers[0] == len(numbers) - 1 and (numbers[1:] > numbers[:-1]).all())


def _grows(numbers: NDArray[np.int64], least: int, most: int) -> bool:
    """Whether numbers never fall, from ``least`` to ``most``. Differences could overflow."""
    is_within = numbers[0] >= least and numbers[-1] <= most
    return bool(is_within and (numbers[1:] >= numbers[:-1]).all())
