"""All entries of an ``.idx`` file, read in blocks, for tools that check every one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.storage.index_format import HEADER, IndexHeader
from blendtitan.storage.reader import OpenFile, ShardIndex, read_head
from blendtitan.storage.writer import sequence_pointers

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
        num_tokens, wrong = self._summed_lens()
        if wrong is not None:
            raise wrong
        return num_tokens

    def sum_lens(self) -> tuple[int, bool]:
        """The sum of the lengths, in tokens, and whether all pointers are where they put them.

        Raises:
            CorruptShardError: A length is negative.
        """
        num_tokens, wrong = self._summed_lens()
        return num_tokens, wrong is None

    def _summed_lens(self) -> tuple[int, CorruptShardError | None]:
        """The sum of the lengths, and the first pointer that contradicts them as an error."""
        token_bytes = self.header.dtype.itemsize
        first = end = 0
        error: CorruptShardError | None = None
        for lens, pointers in zip(self.lens_blocks(), self.pointer_blocks(), strict=True):
            negative = np.flatnonzero(lens < 0)
            if len(negative):
                at = int(negative[0])
                raise self._corrupt(f"sequence {first + at} has {lens[at]} tokens", "0 or more")
            expected, end = sequence_pointers(lens, end, token_bytes)
            wrong = np.flatnonzero(pointers != expected)
            if error is None and len(wrong):
                at = int(wrong[0])
                error = CorruptShardError(
                    f"{self.file.path}: sequence {first + at} starts at byte {pointers[at]:,}, "
                    f"expected {expected[at]:,}, where the lengths before it end. Copy both files "
                    f"again. If the lengths are right, blendtitan repair computes the pointers "
                    f"from them."
                )
            first += len(lens)
        return end // token_bytes, error

    def check_documents(self) -> None:
        """Check that the document index never falls, from 0 to the number of sequences.

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
            if first == 0 and documents[0] != 0:
                raise self._corrupt(f"document 0 starts at sequence {documents[0]}", "0")
            before = int(documents[-1])
            first += len(documents)
        if before != num_sequences:
            raise self._corrupt(f"the document index ends at {before}", f"{num_sequences}")

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


def document_ends(
    lens_blocks: Iterable[NDArray[np.int32]], document_blocks: Iterable[NDArray[np.int64]]
) -> Iterator[NDArray[np.int64]]:
    """Where each document ends, in tokens, by the lengths alone; in blocks.

    Args:
        lens_blocks: Tokens of each sequence, none of them negative.
        document_blocks: A document index that ``IndexArrays.check_documents`` accepts.
    """
    lens = iter(lens_blocks)
    # Tokens before each of the sequences from ``base`` on, and before the one after them.
    base, before = 0, np.zeros(1, np.int64)
    skipped = 1  # The first entry is where the first document starts.
    for documents in document_blocks:
        wanted, skipped = documents[skipped:], 0
        ends = np.empty(len(wanted), np.int64)
        done = 0
        while done < len(wanted):
            stop = int(np.searchsorted(wanted, base + len(before), "left"))
            ends[done:stop] = before[wanted[done:stop] - base]
            done = stop
            if done < len(wanted):
                base += len(before) - 1
                before = before[-1] + np.cumsum(np.append(0, next(lens)), dtype=np.int64)
        if len(ends):
            yield ends


def last_sequences(
    document_blocks: Iterable[NDArray[np.int64]],
) -> Iterator[NDArray[np.int64]]:
    """The last sequence of each document that has one; in blocks."""
    before = 0
    for documents in document_blocks:
        has_sequence = documents > np.append(before, documents[:-1])
        yield documents[has_sequence] - 1
        before = int(documents[-1])


def sequence_span(index: ShardIndex, sequence_id: int) -> tuple[int, int]:
    """Offsets in the shard, in tokens, at which a sequence starts and ends.

    Raises:
        CorruptShardError: They lie outside the shard, or in the wrong order.
    """
    # In one read. The last sequence ends with the shard.
    header, token_bytes = index.header, index.dtype.itemsize
    stop = min(sequence_id + 2, header.num_sequences)
    pointers = index.entries(header.pointers_at, sequence_id, stop).tolist()
    end_bytes = index.num_tokens * token_bytes
    start, end = pointers if len(pointers) == 2 else (pointers[0], end_bytes)
    if (start | end) % token_bytes or not 0 <= start <= end <= end_bytes:
        raise index.corrupt(
            f"sequence {sequence_id} lies at bytes {start} to {end}",
            f"growing multiples of {token_bytes} up to {end_bytes}",
        )
    return start // token_bytes, end // token_bytes
