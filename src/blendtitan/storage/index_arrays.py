"""Whole ``.idx`` files in memory, for the tools that check, repair, merge and convert shards.

They take about 20 bytes per document. Training reads single entries instead: see ``reader``, and
``document_starts`` and ``sequence_span`` at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.storage.index_format import (
    CODE_OF_DTYPE,
    HEADER,
    MAGIC,
    VERSION,
    IndexHeader,
)
from blendtitan.storage.reader import OpenFile, ShardIndex, grows, read_head

_BLOCK_ENTRIES = 1 << 18


@dataclass(frozen=True, slots=True)
class IndexArrays:
    """The three arrays of an ``.idx`` file. ``open`` checks only the header and the size."""

    path: str
    dtype: np.dtype[Any]

    lens: NDArray[np.int32]
    """Tokens of each sequence."""

    pointers: NDArray[np.int64]
    """Start of each sequence in the ``.bin``, in bytes."""

    documents: NDArray[np.int64]
    """First sequence of each document, then the number of sequences."""

    @classmethod
    def open(cls, prefix: Path | str) -> Self:
        """Read the ``.idx`` of a shard.

        Raises:
            MissingShardError: The file is absent or cannot be read.
            CorruptShardError: Its header cannot be used, or contradicts its size.
        """
        return cls.of_file(OpenFile.open(f"{prefix}.idx"))

    @classmethod
    def of_file(cls, file: OpenFile, *, may_have_modes: bool = False) -> Self:
        """The same for an open file; modes of a multimodal shard may follow the arrays."""
        header, _ = read_head(file, may_have_modes=may_have_modes)
        lens = np.empty(header.num_sequences, np.dtype("<i4"))
        pointers = np.empty(header.num_sequences, np.dtype("<i8"))
        documents = np.empty(header.num_documents + 1, np.dtype("<i8"))
        at = HEADER.size
        for array in (lens, pointers, documents):
            if len(array):
                file.read_into(array, at=at)
            at += array.nbytes
        return cls(file.path, header.dtype, lens, pointers, documents)

    @property
    def header(self) -> IndexHeader:
        """The fixed fields of the file."""
        return IndexHeader(self.dtype, len(self.lens), len(self.documents) - 1)

    @property
    def header_bytes(self) -> int:
        """Bytes of the ``.bin`` before its first token; only other programs' files have any."""
        return int(self.pointers[0]) if len(self.pointers) else 0

    def check_lens(self) -> int:
        """Check every length and every pointer; return the sum of the lengths, in tokens.

        Raises:
            CorruptShardError: A length is negative, or a sequence does not start where the
                lengths before it end.
        """
        num_tokens = self.sum_lens()
        expected = self.header_bytes + sequence_pointers(self.lens, self.dtype.itemsize)
        wrong = np.flatnonzero(self.pointers != expected)
        if len(wrong):
            at = int(wrong[0])
            raise CorruptShardError(
                f"{self.path}: sequence {at} starts at byte {self.pointers[at]:,}, expected "
                f"{expected[at]:,}, where the lengths before it end. Copy both files again. If the "
                f"lengths are right, blendtitan repair computes the pointers from them."
            )
        return num_tokens

    def sum_lens(self) -> int:
        """Sum of the lengths, in tokens; CorruptShardError if one is negative."""
        negative = np.flatnonzero(self.lens < 0)
        if len(negative):
            at = int(negative[0])
            raise CorruptShardError.of_index(
                self.path, f"sequence {at} has {self.lens[at]} tokens", "0 or more"
            )
        return int(self.lens.sum(dtype=np.int64))

    def check_documents(self) -> None:
        """Raise a CorruptShardError unless the document index grows from 0 to the last sequence."""
        documents, num_sequences = self.documents, len(self.lens)
        if documents[0] != 0:
            raise CorruptShardError.of_index(
                self.path, f"document 0 starts at sequence {documents[0]}", "0"
            )
        # Compared, not subtracted: a difference of two entries could overflow.
        wrong = np.flatnonzero((documents[1:] < documents[:-1]) | (documents[1:] > num_sequences))
        if len(wrong):
            at = int(wrong[0]) + 1
            raise CorruptShardError.of_index(
                self.path,
                f"document {at} starts at sequence {documents[at]}",
                f"{documents[at - 1]} to {num_sequences}",
            )
        if documents[-1] != num_sequences:
            raise CorruptShardError.of_index(
                self.path, f"the document index ends at {documents[-1]}", f"{num_sequences}"
            )


def encode_index(
    sequence_lens: NDArray[np.int32],
    document_index: NDArray[np.int64] | None = None,
    *,
    dtype: np.dtype[Any],
    header_bytes: int = 0,
) -> Iterator[bytes]:
    """Yield the bytes of an ``.idx`` file, a block of an array at a time.

    Args:
        sequence_lens: Tokens of each sequence. Shape ``(num_sequences,)``.
        document_index: First sequence of each document, then ``num_sequences``. Shape
            ``(num_documents + 1,)``. None: every sequence is a document.
        dtype: Token type in the ``.bin``.
        header_bytes: Bytes of the ``.bin`` before its first token.
    """
    num_sequences = len(sequence_lens)
    num_entries = num_sequences + 1 if document_index is None else len(document_index)
    blocks = range(0, num_sequences, _BLOCK_ENTRIES)
    yield encode_header(IndexHeader(dtype, num_sequences, num_entries - 1))
    for at in blocks:
        yield sequence_lens[at : at + _BLOCK_ENTRIES].astype("<i4", copy=False).tobytes()
    end = header_bytes
    for at in blocks:
        lens = sequence_lens[at : at + _BLOCK_ENTRIES]
        yield (end + sequence_pointers(lens, dtype.itemsize)).astype("<i8", copy=False).tobytes()
        end += int(lens.sum(dtype=np.int64)) * dtype.itemsize
    for at in range(0, num_entries, _BLOCK_ENTRIES):
        stop = min(at + _BLOCK_ENTRIES, num_entries)
        entries = np.arange(at, stop) if document_index is None else document_index[at:stop]
        yield entries.astype("<i8", copy=False).tobytes()


def encode_header(header: IndexHeader) -> bytes:
    """The first 34 bytes of an ``.idx`` file."""
    code = CODE_OF_DTYPE[header.dtype]
    return HEADER.pack(MAGIC, VERSION, code, header.num_sequences, header.num_documents + 1)


def sequence_pointers(lens: NDArray[np.int32], token_bytes: int) -> NDArray[np.int64]:
    """Byte offset of each sequence in a ``.bin`` that holds them end to end."""
    lens_bytes = lens.astype(np.int64) * token_bytes
    return np.cumsum(lens_bytes) - lens_bytes


def document_ends(lens: NDArray[np.int32], documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """End of each document, in tokens, computed from lengths and document index."""
    return np.append(0, np.cumsum(lens, dtype=np.int64))[documents[1:]]


def last_sequences(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last sequence of each document that has one."""
    return documents[1:][documents[1:] > documents[:-1]] - 1


def document_starts(index: ShardIndex, first: int, last: int) -> NDArray[np.int64]:
    """Offsets in the ``.bin`` of documents ``first`` to ``last``, in tokens.

    Shape ``(last - first + 1,)``. ``last`` may be ``num_documents``.

    Raises:
        CorruptShardError: They are outside the shard, or in the wrong order.
    """
    header, token_bytes = index.header, index.dtype.itemsize
    sequences = index.entries(header.documents_at, first, last + 1)
    if not grows(sequences, header.num_sequences):
        raise index.corrupt(
            f"documents {first} to {last} start at sequences that go backwards",
            f"growing numbers up to {header.num_sequences}",
        )
    low, high = int(sequences[0]), int(sequences[-1])
    pointers = index.entries(header.pointers_at, low, min(high + 1, header.num_sequences))
    if (pointers % token_bytes).any():
        raise index.corrupt(
            f"a sequence of documents {first} to {last} starts at an odd byte",
            f"multiples of {token_bytes}",
        )
    starts = np.append(pointers // token_bytes, index.stop)[sequences - low]
    if not grows(starts, index.stop):
        raise index.corrupt(
            f"documents {first} to {last} start at offsets that go backwards",
            f"growing offsets up to {index.stop}",
        )
    return starts


def sequence_span(index: ShardIndex, sequence_id: int) -> tuple[int, int]:
    """Offsets in the ``.bin``, in tokens, at which a sequence starts and ends.

    Raises:
        CorruptShardError: They are outside the shard, or in the wrong order.
    """
    # In one read. The last sequence ends with the shard.
    header, token_bytes = index.header, index.dtype.itemsize
    stop = min(sequence_id + 2, header.num_sequences)
    pointers = index.entries(header.pointers_at, sequence_id, stop).tolist()
    end_bytes = index.stop * token_bytes
    start, end = pointers if len(pointers) == 2 else (pointers[0], end_bytes)
    if (start | end) % token_bytes or not 0 <= start <= end <= end_bytes:
        raise index.corrupt(
            f"sequence {sequence_id} is at bytes {start} to {end}",
            f"growing multiples of {token_bytes} up to {end_bytes}",
        )
    return start // token_bytes, end // token_bytes
