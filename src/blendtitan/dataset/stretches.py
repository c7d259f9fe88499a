"""Stretches of rows: windows that cross shards or wrap around, and documents that lack EOD.

Documents that lack EOD are read as if each were followed by it. In a shard without EODs, document
``d`` of a split that begins at document ``f`` starts ``document_start(d) - document_start(f) + (d -
f)`` tokens into the split: one inserted EOD for each document before it. Nothing is kept in memory:
document starts are read from the ``.idx``.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from blendtitan.dataset.rows import Rows
from blendtitan.errors import MixedEodError
from blendtitan.storage.reader import ShardIndex

IntArray = NDArray[np.int64]


def read_stretch(rows: Rows, row: int, start: int, out: NDArray[np.integer]) -> None:
    """Fill ``out`` with the tokens of a row from ``start`` on, wrapping around at its end."""
    filled = 0
    for piece, offset, count in pieces_of(rows, row, start, len(out)):
        part = out[filled : filled + count]
        shard = int(rows.piece_shards[piece])
        if rows.catalog.lacks_eod[shard]:
            _read_without_eod(rows, shard, offset, part)
        else:
            at = int(rows.piece_bytes[piece] + offset * rows.piece_token_bytes[piece])
            rows.read_contiguous(shard, at, part)
        filled += count


def offset_in_shard(rows: Rows, row: int, start: int) -> tuple[int, int]:
    """``(shard, offset)`` of the token at ``start`` of a row.

    Offsets are tokens from the start of the split's part, inserted EODs included.
    """
    piece, offset, _ = next(pieces_of(rows, row, start, 1))
    return int(rows.piece_shards[piece]), offset


def document_of(rows: Rows, row: int, start: int) -> tuple[int, int]:
    """``(shard, document_id)`` of the token at ``start`` of a row."""
    shard, offset = offset_in_shard(rows, row, start)
    index = shard_index(rows, shard)
    first = int(rows.catalog.document_cuts[shard, rows.split])
    if rows.catalog.lacks_eod[shard]:
        return shard, document_at_with_eod(index, first, offset)
    return shard, document_at(index, int(rows.catalog.token_cuts[shard, rows.split]) + offset)


def document_at(index: ShardIndex, offset: int) -> int:
    """The document that holds the token at an offset in the ``.bin``, found by bisection."""
    return bisect_right(range(index.num_documents), offset, key=index.document_start) - 1


def shard_index(rows: Rows, shard: int) -> ShardIndex:
    """The opened ``.idx`` of a shard."""
    prefix, header = rows.catalog.prefixes[shard], rows.catalog.header(shard)
    file = rows.files.open(prefix + ".idx", lambda: header.file_bytes)
    if rows.is_remote:
        from blendtitan.storage.remote_file import check_version

        check_version(file, int(rows.catalog.file_versions[shard, 0]))
    start, *_, stop = rows.catalog.token_cuts[shard].tolist()
    return ShardIndex(prefix, header, stop - start, file, start=start)


def pieces_of(rows: Rows, row: int, start: int, count: int) -> Iterator[tuple[int, int, int]]:
    """``row_pieces`` of a row of some rows."""
    span = int(rows.row_starts[row]), int(rows.num_tokens[row])
    return row_pieces(rows.piece_starts, span, start, count)


def row_pieces(
    piece_starts: IntArray, row: tuple[int, int], start: int, count: int
) -> Iterator[tuple[int, int, int]]:
    """``(piece, offset in it, tokens)`` of a stretch of a row, in order.

    Args:
        piece_starts: Position of the first token of each piece of all rows, growing; then the end
            of the last. Pieces without tokens hold none.
        row: Position of the row's first token, and its tokens.
        start: Offset of the stretch in the row. Offsets wrap around at its end.
        count: Tokens of the stretch.
    """
    row_start, size = row
    while count:
        position = row_start + start % size
        piece = int(np.searchsorted(piece_starts, position, side="right")) - 1
        offset = position - int(piece_starts[piece])
        take = min(count, int(piece_starts[piece + 1]) - position)
        yield piece, offset, take
        start += take
        count -= take


def _read_without_eod(rows: Rows, shard: int, offset: int, out: NDArray[np.integer]) -> None:
    assert rows.eod_id is not None
    dtype = rows.catalog.dtype(shard)

    def read_tokens(first: int, count: int) -> NDArray[np.integer]:
        tokens = np.empty(count, dtype)
        rows.read_contiguous(shard, first * dtype.itemsize, tokens)
        return tokens

    cuts = rows.catalog.document_cuts[shard]
    documents = range(int(cuts[rows.split]), int(cuts[rows.split + 1]))
    read_with_eod(shard_index(rows, shard), read_tokens, documents, offset, out, eod_id=rows.eod_id)


def document_at_with_eod(index: ShardIndex, first_document: int, offset: int) -> int:
    """The document that holds the token at ``offset``, or whose EOD it is."""
    first_token = index.document_start(first_document)

    def start(document_id: int) -> int:
        return index.document_start(document_id) - first_token + document_id - first_document

    documents = range(first_document, index.num_documents)
    return documents[bisect_right(documents, offset, key=start) - 1]


def read_with_eod(
    index: ShardIndex,
    read_tokens: Callable[[int, int], NDArray[np.integer]],
    documents: range,
    offset: int,
    out: NDArray[np.integer],
    *,
    eod_id: int,
) -> None:
    """Fill ``out`` with tokens of a split, EOD inserted after each of its documents.

    Args:
        index: The shard's ``.idx``.
        read_tokens: From an offset in the shard and a count to that many tokens.
        documents: Documents of the split.
        offset: Start, in tokens from the split's start, inserted EODs included.
        out: Shape ``(count,)``; the split has at least ``offset + count`` tokens.
        eod_id: The token to insert.

    Raises:
        MixedEodError: A document already ends in EOD.
    """
    document_id = document_at_with_eod(index, documents.start, offset)
    # Every document has at least one token here, its EOD, which limits the documents touched.
    last = min(document_id + len(out), documents.stop)
    starts = index.document_starts(document_id, last)
    first_token = index.document_start(documents.start)
    inserted_before = document_id - documents.start
    eods = starts[1:] - first_token + inserted_before + np.arange(last - document_id) - offset
    eods = eods[(eods >= 0) & (eods < len(out))]
    is_eod = np.zeros(len(out), np.bool_)
    is_eod[eods] = True
    tokens = read_tokens(first_token + offset - inserted_before, len(out) - len(eods))
    out[is_eod] = eod_id
    out[~is_eod] = tokens
    before = eods[eods > 0] - 1
    doubled = before[(out[before] == eod_id) & ~is_eod[before]]
    if len(doubled):
        found = document_at_with_eod(index, documents.start, offset + int(doubled[0]))
        raise MixedEodError(
            f"{index.prefix}: document {found} ends in EOD ({eod_id}), but others of the shard "
            f"do not. Tokenise the shard again, or set append_eod = false to insert no EOD."
        )
