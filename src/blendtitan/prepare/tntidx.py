"""TNTIDX: the older format of fairseq, and of gpt-neox's and Megatron's ``lazy`` and ``cached``.

The ``.bin`` holds tokens without gaps, as Megatron's. The ``.idx`` is, little endian:

    size     field
    8        ``TNTIDX`` and two zero bytes
    8        version, 1
    8, 8     dtype code, bytes of a token
    8, 8     number of items N, number of sizes S
    8        entries of the document index D; not in fairseq's files
    8 (N+1)  first size of each item, then S
    8 (N+1)  start of each item in the ``.bin``, in tokens, then the number of tokens
    8 S      sizes: the length of each item, because items have one dimension
    8 D      document index: first item of each document, then N; not in fairseq's files

All fields are 64-bit integers. Source: ``indexed_dataset.py`` of fairseq and of gpt-neox.

fairseq stores every id plus 1, and subtracts it again when it reads ("for Lua compatibility");
its files have no document index, and an item is a document. gpt-neox and Megatron store ids as
they are.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.storage.index_format import DTYPE_CODES, OLD_MAGIC, IndexHeader
from blendtitan.storage.reader import OpenFile

_HEADER = struct.Struct("<8s5Q")
_NUM_DOCUMENTS = struct.Struct("<Q")
_BLOCK = 1 << 18
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class OldShard:
    """A shard in the TNTIDX format. Arrays are read in blocks."""

    prefix: Path
    file: OpenFile
    header: IndexHeader
    arrays_at: int
    """Start of the first array in the ``.idx``, in bytes."""

    is_fairseq: bool
    """Whether ids are stored plus 1, without a document index."""

    @classmethod
    def open(cls, prefix: Path) -> Self | None:
        """The shard at a prefix, checked. None: it has another format."""
        file = OpenFile.open(f"{prefix}.idx")
        head = file.read(min(_HEADER.size + _NUM_DOCUMENTS.size, file.num_bytes), at=0)
        if not head.startswith(OLD_MAGIC):
            return None
        shard = cls._of_header(prefix, file, head)
        shard._check()
        return shard

    @property
    def description(self) -> str:
        """The format, and what is changed."""
        return "TNTIDX of fairseq, ids less 1" if self.is_fairseq else "TNTIDX"

    def lens_blocks(self) -> Iterator[NDArray[np.int32]]:
        """Tokens of each item."""
        for sizes in self._blocks(2 * (self.header.num_sequences + 1), self.header.num_sequences):
            yield sizes.astype(np.int32)

    def document_blocks(self) -> Iterator[NDArray[np.int64]]:
        """The document index."""
        num_items, num_entries = self.header.num_sequences, self.header.num_documents + 1
        if not self.is_fairseq:
            yield from self._blocks(3 * num_items + 2, num_entries)
            return
        for first in range(0, num_entries, _BLOCK):
            yield np.arange(first, min(first + _BLOCK, num_entries))

    def write_tokens(self, out: BinaryIO) -> None:
        """Append the tokens to a ``.bin``, as ids that start at 0."""
        file, dtype = OpenFile.open(f"{self.prefix}.bin"), self.header.dtype
        for at in range(0, file.num_bytes, _BLOCK * dtype.itemsize):
            tokens = np.frombuffer(
                file.read(min(_BLOCK * dtype.itemsize, file.num_bytes - at), at=at), dtype
            )
            if self.is_fairseq:
                if tokens.min() < 1:
                    raise CorruptShardError(
                        f"{file.path}: found the stored id {tokens.min()}, expected 1 or more. "
                        f"fairseq stores every id plus 1, and this file has no document index, as "
                        f"fairseq's have none; it was written by another program."
                    )
                tokens = tokens - dtype.type(1)
            out.write(tokens.data)

    @classmethod
    def _of_header(cls, prefix: Path, file: OpenFile, head: bytes) -> Self:
        if len(head) < _HEADER.size:
            raise _corrupt(file, f"{file.num_bytes} bytes", f"a header of {_HEADER.size}")
        _, version, code, token_bytes, num_items, num_sizes = _HEADER.unpack_from(head)
        dtype = DTYPE_CODES.get(code)
        if version != 1 or dtype is None or dtype.kind not in "iu" or token_bytes != dtype.itemsize:
            found = f"version {version}, dtype code {code} of {token_bytes} bytes"
            raise _corrupt(file, found, "version 1 and an integer type, code 1 to 5 or 8")
        # Every count is compared with the size of the file before anything else is read.
        least = _HEADER.size + 8 * (2 * (num_items + 1) + num_sizes)
        if file.num_bytes == least:
            header = IndexHeader(dtype, num_items, num_items)
            return cls(prefix, file, header, _HEADER.size, is_fairseq=True)
        num_entries = _NUM_DOCUMENTS.unpack_from(head, _HEADER.size)[0] if len(head) == 56 else 0
        if num_entries < 1 or file.num_bytes != least + 8 + 8 * num_entries:
            raise _corrupt(
                file,
                f"{file.num_bytes:,} bytes",
                f"{least:,} without a document index or {least + 8 + 8 * num_entries:,} with one, "
                f"by its header",
            )
        header = IndexHeader(dtype, num_items, num_entries - 1)
        return cls(prefix, file, header, _HEADER.size + _NUM_DOCUMENTS.size, is_fairseq=False)

    def _check(self) -> None:
        """Check every entry of every array, and the size of the ``.bin``."""
        num_items = self.header.num_sequences
        num_tokens = self._check_sizes()
        found = OpenFile.open(f"{self.prefix}.bin").num_bytes
        expected = num_tokens * self.header.dtype.itemsize
        if found != expected or not num_items:
            raise CorruptShardError(
                f"{self.prefix}.bin: found {found:,} bytes, expected {expected:,}, by the sizes of "
                f"{num_items:,} items in the .idx. Copy both files again."
            )
        first = 0
        for dimensions in self._blocks(0, num_items + 1):
            if not np.array_equal(dimensions, np.arange(first, first + len(dimensions))):
                raise _corrupt(self.file, "items of several dimensions", "texts, which have one")
            first += len(dimensions)
        self._check_documents()

    def _check_sizes(self) -> int:
        """Check that every item starts where the sizes before it end; returns the last end."""
        num_items = self.header.num_sequences
        offsets = self._blocks(num_items + 1, num_items + 1)
        first = end = 0
        carried = np.zeros(0, np.int64)
        for sizes in self._blocks(2 * (num_items + 1), num_items):
            if sizes.min() < 0 or sizes.max() > _INT32_MAX:
                found = f"an item of {sizes.min()} to {sizes.max()} tokens"
                raise _corrupt(self.file, found, f"0 to {_INT32_MAX:,}")
            starts = end + np.cumsum(sizes) - sizes
            while len(carried) < len(starts):
                carried = np.append(carried, next(offsets))
            wrong = np.flatnonzero(carried[: len(starts)] != starts)
            if len(wrong):
                at = int(wrong[0])
                raise _corrupt(
                    self.file,
                    f"item {first + at:,} starts at token {carried[at]:,}",
                    f"{starts[at]:,}, where the sizes before it end",
                )
            carried = carried[len(starts) :]
            first, end = first + len(sizes), end + int(sizes.sum())
        last = int(np.append(carried, [*offsets])[0])
        if last != end:
            raise _corrupt(self.file, f"the last item ends at token {last:,}", f"{end:,}")
        return end

    def _check_documents(self) -> None:
        before, is_first = 0, True
        for documents in self.document_blocks():
            falls = np.any(documents < np.append(before, documents[:-1]))
            if falls or (is_first and documents[0] != 0):
                raise _corrupt(self.file, "a document index that falls", "one that grows from 0")
            before, is_first = int(documents[-1]), False
        if before != self.header.num_sequences:
            raise CorruptShardError(
                f"{self.file.path}: the document index ends at item {before:,}, expected "
                f"{self.header.num_sequences:,}. A program that merged shards lost documents of "
                f"the index: convert the original shards, and join them with blendtitan merge."
            )

    def _blocks(self, first: int, count: int) -> Iterator[NDArray[np.int64]]:
        """``count`` integers of the arrays, from number ``first`` on, in blocks."""
        dtype: np.dtype[Any] = np.dtype("<i8")
        for start in range(first, first + count, _BLOCK):
            block = np.empty(min(_BLOCK, first + count - start), dtype)
            self.file.read_into(block, at=self.arrays_at + 8 * start)
            yield block


def _corrupt(file: OpenFile, found: str, expected: str) -> CorruptShardError:
    return CorruptShardError(
        f"{file.path}: found {found}, expected {expected}. Copy both files again, or tokenise the "
        f"shard again."
    )
