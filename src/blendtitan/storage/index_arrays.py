"""All entries of an ``.idx`` file, read in blocks: for what must look at every one of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.storage.index_format import HEADER, IndexHeader, sequence_pointers
from blendtitan.storage.open_files import OpenFile
from blendtitan.storage.reader import read_head

# Entries read at a time: a few megabytes, whatever the size of the file.
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class IndexArrays:
    """The three arrays of an ``.idx`` file. Only its header and size are checked by ``open``."""

    header: IndexHeader
    file: OpenFile

    @classmethod
    def open(cls, prefix: Path) -> Self:
        """Open the ``.idx`` of a shard.

        Raises:
            MissingShardError: It is absent or cannot be read.
            CorruptShardError: Its header cannot be used, or contradicts its size.
        """
        file = OpenFile.open(f"{prefix}.idx")
        return cls(read_head(file)[0], file)

    def lens_blocks(self) -> Iterator[NDArray[np.int32]]:
        """Tokens of each sequence, in blocks."""
        return self._blocks(HEADER.size, self.header.num_sequences, np.dtype("<i4"))

    def pointer_blocks(self) -> Iterator[NDArray[np.int64]]:
        """Where each sequence starts in the ``.bin``, in bytes, in blocks."""
        return self._blocks(self.header.pointers_at, self.header.num_sequences, np.dtype("<i8"))

    def document_blocks(self) -> Iterator[NDArray[np.int64]]:
        """First sequence of each document, then the number of sequences, in blocks."""
        num_entries = self.header.num_documents + 1
        return self._blocks(self.header.documents_at, num_entries, np.dtype("<i8"))

    def check_lens(self) -> int:
        """Check every length, and that every pointer is where the lengths before it end.

        Returns:
            The sum of the lengths, in tokens.

        Raises:
            CorruptShardError: A length is negative, or a pointer is another.
        """
        token_bytes = self.header.dtype.itemsize
        first = end = 0
        for lens, pointers in zip(self.lens_blocks(), self.pointer_blocks(), strict=True):
            negative = np.flatnonzero(lens < 0)
            if len(negative):
                at = int(negative[0])
                raise self._corrupt(f"sequence {first + at} has {lens[at]} tokens", "0 or more")
            expected, end = sequence_pointers(lens, end, token_bytes)
            wrong = np.flatnonzero(pointers != expected)
            if len(wrong):
                at = int(wrong[0])
                raise self._corrupt(
                    f"sequence {first + at} starts at byte {pointers[at]:,}",
                    f"{expected[at]:,}, where the lengths before it end",
                )
            first += len(lens)
        return end // token_bytes

    def check_documents(self) -> None:
        """Check that the document index never falls. Its ends are checked by ``ShardIndex``.

        Raises:
            CorruptShardError: It does, or leads to a sequence that is not there.
        """
        num_sequences = self.header.num_sequences
        first = before = 0
        for documents in self.document_blocks():
            # Compared, not subtracted: a difference of two entries could overflow.
            falls = documents < np.concatenate([[before], documents[:-1]])
            wrong = np.flatnonzero(falls | (documents > num_sequences))
            if len(wrong):
                at = int(wrong[0])
                raise self._corrupt(
                    f"document {first + at} starts at sequence {documents[at]}",
                    f"{documents[at - 1] if at else before} to {num_sequences}",
                )
            before = int(documents[-1])
            first += len(documents)

    def _blocks(self, at: int, count: int, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        for start in range(0, count, _BLOCK):
            block = np.empty(min(_BLOCK, count - start), dtype)
            self.file.read_into(block, at=at + start * dtype.itemsize)
            yield block

    def _corrupt(self, found: str, expected: str) -> CorruptShardError:
        return CorruptShardError(
            f"{self.file.path}: {found}, expected {expected}. "
            f"Copy both files again, or tokenise the shard again."
        )
