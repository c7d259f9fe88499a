"""Texts of Parquet files, by row group; only the column asked for is read."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from blendtitan.errors import InputError
from blendtitan.prepare.columns import BATCH_ROWS, column_path, column_texts
from blendtitan.prepare.file_formats import MAX_DOCUMENT_BYTES
from blendtitan.prepare.inputs import InputFile, readable
from blendtitan.prepare.jsonl import BadText

_BATCH_BYTES = 1 << 24


def row_group_runs(file: InputFile, run_bytes: int) -> list[tuple[int, int, int]]:
    """Runs of neighbouring row groups of up to ``run_bytes``, as stored, at least one each.

    Returns:
        First row group, the one after the last, and bytes, of each run.

    Raises:
        InputError: The file is no Parquet file, or cannot be read.
    """
    with _opened(file) as opened:
        metadata = opened.metadata
    runs: list[tuple[int, int, int]] = []
    for group_id in range(metadata.num_row_groups):
        group = metadata.row_group(group_id)
        num_bytes = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
        if runs and runs[-1][2] + num_bytes <= run_bytes:
            start, _, before = runs.pop()
            runs.append((start, group_id + 1, before + num_bytes))
        else:
            runs.append((group_id, group_id + 1, num_bytes))
    return runs


def read_column(
    file: InputFile,
    start: int,
    stop: int,
    *,
    key: str,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    advance: Callable[[int], None],
) -> Iterator[str | BadText]:
    """Texts of one column in row groups ``start`` to ``stop - 1``, in order.

    Args:
        file: A Parquet file.
        start: First row group.
        stop: The row group after the last.
        key: Name of the column, or path of a nested field. Its values are strings.
        max_bytes: Longest text.
        advance: Called with 0 once in a while.

    Raises:
        InputError: The file cannot be read, or has no such column of strings.
    """
    with _opened(file) as opened:
        path = column_path(opened.schema_arrow, key, file.location)
        row = sum(opened.metadata.row_group(i).num_rows for i in range(start))
        for group in range(start, stop):
            rows = _batch_rows(opened.metadata.row_group(group))
            for batch in opened.iter_batches(rows, row_groups=[group], columns=[key]):
                advance(0)
                yield from column_texts(batch, path, row=row, max_bytes=max_bytes)
                row += len(batch)


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Rows to decode at once: those of large documents are few."""
    row_bytes = group.total_byte_size // max(1, group.num_rows)
    return max(1, min(BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))


@contextmanager
def _opened(file: InputFile) -> Generator[pq.ParquetFile]:
    """The file, as long as the block lasts; errors inside it name the file."""
    with readable(file.location):
        try:
            with file.open() as opened:
                yield pq.ParquetFile(opened)
        except pa.ArrowException as error:
            raise InputError(
                f"{file.location}: cannot be read as a Parquet file: {error}"
            ) from error
