"""Find whether the documents of a shard begin and end with EOD.

All documents are checked if that is cheap, otherwise a sample spread over the shard.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import OpenFile, ShardIndex, grows
from blendtitan.storage.records import DocumentEnds
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

IntArray = NDArray[np.int64]

# Tokens closer together than this are read with the bytes between them: on a disk or a network,
# one read takes as long as reading this much more.
_FAR_BYTES = 1 << 14
# Cost limit of a document of any length, because the bytes between its ends are not read.
_MOST_BYTES = 1 << 16
# Up to this size, everything between the first and the last token is read at once.
_WHOLE_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_BLOCK_DOCUMENTS = 1 << 16

# The least and the most stretches of neighbouring documents in a sample, and documents in each.
_STRETCHES = 4, 256
_STRETCH_DOCUMENTS = 32


def find_document_ends(index: ShardIndex, eod_id: int, *, allowance: int) -> DocumentEnds:
    """Check all documents of a shard, or a sample of them.

    Args:
        index: The shard's ``.idx``.
        eod_id: The token that may end documents.
        allowance: Cost limit, in bytes read. A small sample is always taken.

    Raises:
        ShardError: The shard cannot be read, or an entry of its ``.idx`` cannot be right.
    """
    file = OpenFile.open(f"{index.prefix}.bin")
    checked = filled = num_eod = num_begin = 0
    for starts in _checked_starts(index, allowance):
        places = np.empty((starts.size - len(starts), 2), np.int64)
        places[:, 0] = starts[:, :-1].ravel()
        places[:, 1] = starts[:, 1:].ravel()
        places[:, 1] -= 1
        checked += len(places)
        is_filled = places[:, 1] >= places[:, 0]
        if not is_filled.all():
            places = places[is_filled]
        is_eod = _tokens_at(file, index.dtype, places.ravel()) == eod_id
        filled += len(places)
        num_begin += int(np.count_nonzero(is_eod[::2]))
        num_eod += int(np.count_nonzero(is_eod[1::2]))
    return DocumentEnds(eod_id, index.num_documents, checked, filled, num_eod, num_begin)


def _checked_starts(index: ShardIndex, allowance: int) -> Iterator[IntArray]:
    """Starts of the documents to check, in stretches of neighbours.

    Each array has one row for each stretch: the starts of its documents, and the end of the last.
    """
    total = index.num_documents
    mean_bytes = index.num_tokens * index.dtype.itemsize / total
    least, most = _STRETCHES
    count = min(max(allowance // (4 * _MOST_BYTES), least), most)
    stretch_bytes = min(allowance / count, _MOST_BYTES)
    length = min(max(int(stretch_bytes / mean_bytes), 1), _STRETCH_DOCUMENTS)
    if total * min(mean_bytes, _MOST_BYTES) <= allowance or total <= count * length:
        for first in range(0, total, _BLOCK_DOCUMENTS):
            yield _starts(index, [first], min(_BLOCK_DOCUMENTS, total - first))
        return
    # Both ends of the shard are part of the sample.
    firsts = [(total - length) * i // (count - 1) for i in range(count)]
    yield _starts(index, firsts, length)


def _starts(index: ShardIndex, firsts: Sequence[int], length: int) -> IntArray:
    """``index.document_starts(first, first + length)`` for each of ``firsts``, in few steps."""
    header, token_bytes = index.header, index.dtype.itemsize
    at = header.documents_at
    documents = b"".join(index.read(8 * (length + 1), at=at + 8 * first) for first in firsts)
    sequences = np.frombuffer(documents, "<i8").reshape(-1, length + 1)
    lows = cast("list[int]", sequences[:, 0].tolist())
    end = header.num_sequences - length
    # The fast way is for shards of one sequence per document.
    if not (sequences - sequences[:, :1] == np.arange(length + 1)).all() or not all(
        0 <= low <= end for low in lows
    ):
        return np.stack([index.document_starts(first, first + length) for first in firsts])
    at, end_pointer = header.pointers_at, (index.stop * token_bytes).to_bytes(8, "little")
    pointers = b"".join(
        index.read(8 * (length + (low < end)), at=at + 8 * low)
        + (b"" if low < end else end_pointer)
        for low in lows
    )
    found = np.frombuffer(pointers, "<i8").reshape(-1, length + 1)
    starts = found // token_bytes
    if (starts * token_bytes != found).any() or not grows(starts.ravel(), index.stop):
        raise index.corrupt(
            f"documents {firsts[0]} to {firsts[-1] + length} start at odd bytes, or at offsets "
            f"that go backwards",
            f"growing multiples of {token_bytes} bytes",
        )
    return starts


def _tokens_at(file: OpenFile, dtype: np.dtype[Any], places: IntArray) -> NDArray[np.integer]:
    """The tokens at places of a ``.bin``, which never fall, in few reads of bounded size."""
    if not len(places):
        return np.empty(0, dtype)
    low, stop = int(places[0]), int(places[-1]) + 1
    if (stop - low) * dtype.itemsize <= _WHOLE_BYTES:
        return _read(file, dtype, low, stop)[places - low]
    far, block = _FAR_BYTES // dtype.itemsize, _BLOCK_BYTES // dtype.itemsize
    number = places // block
    is_apart = (places[1:] - places[:-1] > far) | (number[1:] != number[:-1])
    cuts = (is_apart.nonzero()[0] + 1).tolist()
    tokens = np.empty(len(places), dtype)
    for first, last in pairwise([0, *cuts, len(places)]):
        here = places[first:last]
        low = int(here[0])
        tokens[first:last] = _read(file, dtype, low, int(here[-1]) + 1)[here - low]
    return tokens


def _read(file: OpenFile, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[np.integer]:
    tokens = np.empty(stop - start, dtype)
    file.read_into(tokens, at=start * dtype.itemsize)
    return tokens


def log_sample(found: list[DocumentEnds]) -> None:
    """Say that not all documents of some shards were checked."""
    sampled = [ends for ends in found if not ends.is_complete]
    logger.info(
        "Checked the ends of documents: all of them in %s of %s shards, and in the others a "
        "sample of %s of %s. `blendtitan verify --eod-id` checks all of them once and stores "
        "the result beside the shards.",
        *(f"{len(found) - len(sampled):,}", f"{len(found):,}"),
        f"{sum(ends.num_checked for ends in sampled):,}",
        f"{sum(ends.num_documents for ends in sampled):,}",
    )
