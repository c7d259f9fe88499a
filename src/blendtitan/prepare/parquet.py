"""Texts of Parquet files, by row group; only the column asked for is read."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from blendtitan.errors import InputError
from blendtitan.prepare.inputs import InputFile, readable
from blendtitan.prepare.jsonl import BadText

# Documents are large: few rows are many bytes.
_BATCH_ROWS = 256


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
    file: InputFile, start: int, stop: int, *, key: str, advance: Callable[[int], None]
) -> Iterator[str | BadText]:
    """Texts of one column in row groups ``start`` to ``stop - 1``, in order.

    Args:
        file: A Parquet file.
        start: First row group.
        stop: The row group after the last.
        key: Name of the column. Its values are strings.
        advance: Called with 0 once in a while.

    Raises:
        InputError: The file cannot be read, or has no such column of strings.
    """
    groups = range(start, stop)
    with _opened(file) as opened:
        _check_column(opened, key, file.location)
        row = sum(opened.metadata.row_group(i).num_rows for i in range(start))
        for batch in opened.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[key]):
            advance(0)
            # As bytes, so that a text that is not UTF-8 costs no neighbour.
            for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                yield _text(value, key=key, row=row)
                row += 1


def _text(value: bytes | None, *, key: str, row: int) -> str | BadText:
    if value is None:
        return BadText("row", row, f"{key!r} is null, expected a string")
    if not value:
        return BadText("row", row, f"{key!r} is an empty string")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        return BadText("row", row, f"{key!r} is not valid UTF-8: {error}")


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


def _check_column(file: pq.ParquetFile, key: str, location: str) -> None:
    schema = file.schema_arrow
    if key not in schema.names:
        raise InputError(f"{location}: there is no column {key!r}, found {', '.join(schema.names)}")
    found = schema.field(key).type
    if not (pa.types.is_string(found) or pa.types.is_large_string(found)):
        raise InputError(f"{location}: column {key!r} is of type {found}, expected strings")
