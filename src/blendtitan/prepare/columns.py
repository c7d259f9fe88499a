"""Texts of a column of Parquet files, and of Arrow IPC files and streams (Feather, datasets)."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile, readable
from blendtitan.prepare.streams import (
    BadText,
    Kept,
    Text,
    TextRange,
    check_unambiguous,
    kept_text,
)

# Documents are large, so a few rows hold many bytes.
_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 24
_SLICE_BYTES = 1 << 22

_FILE_MAGIC = b"ARROW1"
_OLD_FEATHER_MAGIC = b"FEA1"

_TEXT_TYPES = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    pa.types.is_fixed_size_binary,
)


def row_group_runs(file: InputFile, run_bytes: int) -> list[tuple[int, int, int]]:
    """Runs of row groups of up to ``run_bytes``: ``(first, last + 1, stored bytes)`` each."""
    with opened_as(file, "a Parquet file") as opened:
        metadata = pq.ParquetFile(opened).metadata
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


def read_parquet(source: TextRange) -> Iterator[Text | BadText]:
    """Texts of one column, or of a nested field, in a range of row groups, in order.

    Raises:
        InputError: The file cannot be read, or has no such column of strings.
    """
    with opened_as(source.file, "a Parquet file") as opened:
        table = pq.ParquetFile(opened)
        columns = _Columns.of(table.schema_arrow, source)
        row = sum(table.metadata.row_group(i).num_rows for i in range(source.start))
        for number in range(source.start, source.stop):
            group = table.metadata.row_group(number)
            row_bytes = group.total_byte_size // max(1, group.num_rows)
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
            for batch in table.iter_batches(rows, row_groups=[number], columns=columns.names):
                source.advance(0)
                yield from columns.texts(batch, row=row, max_bytes=source.max_bytes)
                row += len(batch)


def read_arrow(source: TextRange) -> Iterator[Text | BadText]:
    """Texts of one column of an Arrow IPC file or stream, in order."""
    file = source.file
    with opened_as(file, "Arrow data") as opened:
        schema, batches = arrow_batches(opened, file.location)
        columns = _Columns.of(schema, source)
        row = position = 0
        for batch in batches:
            source.advance(opened.tell() - position)
            position = opened.tell()
            yield from columns.texts(batch, row=row, max_bytes=source.max_bytes)
            row += len(batch)
        source.advance(file.num_bytes - position)


def arrow_batches(opened: Any, location: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the batches of an open Arrow IPC file or stream."""
    magic = opened.read(len(_FILE_MAGIC))
    opened.seek(0)
    if magic.startswith(_OLD_FEATHER_MAGIC):
        raise InputError(
            f"{location}: is a Feather file of version 1, expected Arrow's format (version 2). "
            f"Write it again with pyarrow.feather.write_feather."
        )
    if magic == _FILE_MAGIC:
        reader = pa.ipc.open_file(opened)
        return reader.schema, (reader.get_batch(n) for n in range(reader.num_record_batches))
    stream = pa.ipc.open_stream(opened)
    return stream.schema, iter(stream)


@contextmanager
def readable_as(location: str, what: str) -> Generator[None]:
    """Turn errors of reading a file with Arrow inside the block into ones that name it."""
    with readable(location):
        try:
            yield
        # Damaged metadata may raise the others; the last, if it names an absurd size.
        except (pa.ArrowException, UnicodeDecodeError, KeyError, MemoryError) as error:
            reason = str(error) or "a part of it would not fit into memory"
            raise InputError(f"{location}: cannot be read as {what}: {reason}") from error


@contextmanager
def opened_as(file: InputFile, what: str) -> Generator[Any]:
    """The open file; errors inside the block name it."""
    with readable_as(file.location, what), file.open() as opened:
        yield opened


def column_path(schema: pa.Schema, key: str, location: str) -> tuple[list[str], pa.DataType] | None:
    """The name of a column, or the names of a field in nested columns, and its type.

    None: there is no such column.
    """
    path = [key] if key in schema.names else key.split(".")
    found: Any = schema
    for name in path:
        names: list[str] = []
        if isinstance(found, pa.Schema):
            names = found.names
        elif pa.types.is_struct(found):
            names = [field.name for field in found]
        if name not in names:
            return None
        check_unambiguous(name, names, location)
        found = found.field(name).type
    return path, found


@dataclass(frozen=True, slots=True)
class _Columns:
    """The column of texts and the columns to keep, as paths of names."""

    text: list[str]
    kept: list[list[str] | None]
    """None: there is no such column."""

    @classmethod
    def of(cls, schema: pa.Schema, source: TextRange) -> Self:
        """The columns of a file; an ``InputError`` if its texts are not there."""
        location = source.file.location
        column = column_path(schema, source.key, location)
        if column is None:
            names = ", ".join(schema.names)
            raise InputError(f"{location}: there is no column {source.key!r}, found {names}")
        path, found = column
        value_type = found.value_type if pa.types.is_dictionary(found) else found
        if not _is_text(value_type):
            raise InputError(
                f"{location}: column {source.key!r} is of type {found}, expected strings"
            )
        kept = [column_path(schema, name, location) for name in source.keep]
        return cls(path, [column and column[0] for column in kept])

    @property
    def names(self) -> list[str]:
        """Names for Parquet readers."""
        return [".".join(path) for path in (self.text, *self.kept) if path is not None]

    def texts(self, batch: pa.RecordBatch, *, row: int, max_bytes: int) -> Iterator[Text | BadText]:
        """Texts of a batch; an unusable text is replaced by a ``BadText``."""
        column, key = column_at(batch, self.text), ".".join(self.text)
        kept = [None if path is None else column_at(batch, path) for path in self.kept]
        step = max(1, min(_BATCH_ROWS, _SLICE_BYTES * len(column) // (column.nbytes + 1)))
        for start in range(0, len(column), step):
            values = _decoded(column.slice(start, step))
            fields = [
                repeat(None)
                if column is None
                else map(kept_text, column_values(column.slice(start, step)))
                for column in kept
            ]
            # As bytes, so that a text that is not UTF-8 does not affect its neighbours.
            texts = values.cast(pa.large_binary()).to_pylist()
            for value, *own in zip(texts, *fields, strict=False):
                yield _text(value, tuple(own), key=key, row=row, max_bytes=max_bytes)
                row += 1


def column_at(batch: pa.RecordBatch, path: Sequence[str]) -> Any:
    """The column of a batch, or the nested field, that ``column_path`` found."""
    column: Any = batch.column(batch.schema.names.index(path[0]))
    for name in path[1:]:
        # `pyarrow` alone does not import it, and few keys are nested.
        import pyarrow.compute as pc

        # Unlike `field`, this keeps the nulls of the row.
        column = pc.struct_field(column, name)  # pyright: ignore[reportAttributeAccessIssue]
    return column


def _decoded(values: Any) -> Any:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def column_values(values: Any) -> list[Any]:
    """The values of any column, as Python has them."""
    values = _decoded(values)
    if _is_text(values.type):
        texts = values.cast(pa.large_binary()).to_pylist()
        return [text and text.decode(errors="backslashreplace") for text in texts]
    # Python's times lack nanoseconds.
    return (values.cast(pa.string()) if pa.types.is_temporal(values.type) else values).to_pylist()


def _is_text(kind: pa.DataType) -> bool:
    return any(is_type(kind) for is_type in _TEXT_TYPES)


def _text(value: bytes | None, kept: Kept, *, key: str, row: int, max_bytes: int) -> Text | BadText:
    if value is None:
        return BadText("row", row, f"{key!r} is null, expected a string")
    if not value:
        return BadText("row", row, f"{key!r} is an empty string")
    if len(value) > max_bytes:
        return BadText.too_long(row, len(value), max_bytes, what="text", unit="row")
    try:
        return row, value.decode(), kept
    except UnicodeDecodeError as error:
        return BadText("row", row, f"{key!r} is not valid UTF-8: {error}")
