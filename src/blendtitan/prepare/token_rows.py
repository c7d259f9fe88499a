"""Rows of token ids, for ``blendtitan convert``: of Parquet files, and of Arrow files and streams.

``mds`` and ``litdata`` read the rows of these programs. A row is an array of ids: one document, or
a piece of several packed ones.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.columns import (
    arrow_batches,
    column_at,
    column_path,
    column_values,
    opened_as,
)
from blendtitan.prepare.input_file import InputFile, check_fields
from blendtitan.prepare.streams import kept_text

COLUMNS = ("input_ids", "tokens")
"""The names of columns with ids, as Transformers and LLM Foundry give them."""

ARROW_SUFFIXES = (".arrow", ".feather")

RAW_TYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint16", "uint32", "int32")} | {
    "int64": np.dtype("<i8")
}
"""Types that ``--dtype`` names for columns of bytes."""

_MASK = "attention_mask"
_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 4096
_BATCH_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """The user's description of rows of ids."""

    column: str | None = None
    """Column of the ids. None: the first of ``COLUMNS`` that there is."""

    eod_id: int | None = None
    """Token that ends documents; it is appended where it is missing. None: ids stay as they are."""

    is_packed: bool = False
    """Whether rows are pieces of documents laid end to end, which ``eod_id`` ends."""

    vocab_size: int | None = None
    """Ids are below it. None: the largest id decides the type of the shards."""

    dtype: str | None = None
    """Type of ids in a column of bytes; one of ``RAW_TYPES``."""

    keep: tuple[str, ...] = ()
    """Columns to record for each document, beside its row."""

    def __post_init__(self) -> None:
        check_fields(self.keep)
        if self.vocab_size is not None:
            check_at_least("vocab_size", self.vocab_size, 1)
        if self.eod_id is not None:
            check_at_least("eod_id", self.eod_id, 0)
            if self.vocab_size is not None and self.eod_id >= self.vocab_size:
                raise ConfigError(
                    f"eod_id is {self.eod_id}, expected an id below the vocabulary size, "
                    f"{self.vocab_size:,}"
                )
        elif self.is_packed:
            raise ConfigError(
                "--packed needs --eod-id, the id that ends each document in the packed rows"
            )

    def column_among(self, names: Collection[str]) -> str:
        """The column of the ids in a file with these columns; it need not be there."""
        return self.column or next((name for name in COLUMNS if name in names), COLUMNS[0])


class Rows(NamedTuple):
    """Consecutive rows of a file."""

    tokens: NDArray[np.integer]
    """Ids of all rows, end to end."""

    lens: NDArray[np.int64]
    """Ids of each row."""

    kept: tuple[pa.Array, ...] = ()
    """Kept columns, as text."""

    num_padding: int = 0
    """Ids that were left out, because the row's attention mask is 0 for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """A file of rows, which becomes one shard."""

    file: InputFile
    name: Path
    """Prefix of the shard, relative to the output."""

    description: str
    read: Callable[[], Iterator[Rows]]
    """Reads all rows, in order, in batches of bounded size. Raises InputError."""

    find_largest: Callable[[], int | None] = lambda: None
    """The largest id, if the file's statistics give it."""


def parquet_file(file: InputFile, name: Path, settings: RowSettings) -> RowFile:
    """The rows of a Parquet file."""
    return RowFile(
        file=file,
        name=name,
        description="Parquet",
        read=lambda: _parquet_rows(file, settings),
        find_largest=lambda: _largest_by_statistics(file, settings),
    )


def arrow_file(file: InputFile, name: Path, settings: RowSettings) -> RowFile:
    """The rows of an Arrow IPC file or stream."""

    def read() -> Iterator[Rows]:
        with opened_as(file, "Arrow data") as opened:
            yield from rows_of_arrow(opened, file.location, settings)

    return RowFile(file=file, name=name, description="Arrow", read=read)


def rows_of_arrow(opened: Any, location: str, settings: RowSettings) -> Iterator[Rows]:
    """The rows of an open Arrow IPC file or stream, a part of a record batch at a time."""
    schema, batches = arrow_batches(opened, location)
    columns = _TokenColumns.of(schema, location, settings)
    row = 0
    for batch in batches:
        # Arrow trusts the offsets in a file; wrong ones would end the process.
        for path in columns.paths:
            batch.column(batch.schema.names.index(path[0])).validate(full=True)
        step = _batch_rows(batch.nbytes, len(batch))
        for start in range(0, len(batch), step):
            yield columns.rows(batch.slice(start, step), row=row + start)
        row += len(batch)


def _parquet_rows(file: InputFile, settings: RowSettings) -> Iterator[Rows]:
    with opened_as(file, "a Parquet file") as opened:
        # Pages are read as they are needed, and not a whole row group at once.
        table = pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        columns = _TokenColumns.of(table.schema_arrow, file.location, settings)
        row = 0
        for number in range(table.metadata.num_row_groups):
            group = table.metadata.row_group(number)
            step = _batch_rows(group.total_byte_size, group.num_rows)
            for batch in table.iter_batches(step, row_groups=[number], columns=columns.names):
                yield columns.rows(batch, row=row)
                row += len(batch)


def _batch_rows(num_bytes: int, num_rows: int) -> int:
    """Rows of a batch of bounded size, if ``num_rows`` rows have ``num_bytes`` bytes."""
    row_bytes = num_bytes // max(1, num_rows)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))


def _largest_by_statistics(file: InputFile, settings: RowSettings) -> int | None:
    with opened_as(file, "a Parquet file") as opened:
        table = pq.ParquetFile(opened)
        columns = _TokenColumns.of(table.schema_arrow, file.location, settings)
        leaves = [table.schema.column(at).path for at in range(len(table.schema))]
        # The ids of `a.b` are the only leaf below it, such as `a.b.list.element`.
        prefix = ".".join(columns.tokens) + "."
        leaf = next((at for at, path in enumerate(leaves) if path.startswith(prefix)), None)
        if leaf is None:  # a repeated field without the groups of a list
            return None
        largest = -1
        for number in range(table.metadata.num_row_groups):
            column = table.metadata.row_group(number).column(leaf)
            statistics = column.statistics
            if column.num_values and (statistics is None or not statistics.has_min_max):
                return None
            largest = max(largest, statistics.max if column.num_values else -1)
        return largest


@dataclass(frozen=True, slots=True)
class _TokenColumns:
    """The columns to read, as paths of names."""

    location: str
    tokens: list[str]
    mask: list[str] | None
    kept: list[list[str] | None]
    """None: there is no such column."""

    @classmethod
    def of(cls, schema: pa.Schema, location: str, settings: RowSettings) -> Self:
        """The columns of a file; an ``InputError`` if its ids are not there."""
        name = settings.column_among(schema.names)
        found = column_path(schema, name, location)
        if found is None:
            raise no_column(location, name, schema.names)
        path, kind = found
        if not _is_list(kind) or not pa.types.is_integer(kind.value_type):
            raise InputError(
                f"{location}: column {name!r} is of type {kind}, expected lists of integers, the "
                f"ids of a row. Name the column of the ids with --column; to make ids of text, use "
                f"blendtitan tokenize."
            )
        has_mask = path == [COLUMNS[0]] and _MASK in schema.names
        if has_mask and not _is_list(schema.field(_MASK).type):
            raise InputError(
                f"{location}: column {_MASK!r} is of type {schema.field(_MASK).type}, expected "
                f"lists of 0 and 1, one for each id. Leave this column out."
            )
        kept = [column_path(schema, field, location) for field in settings.keep]
        return cls(
            location, path, [_MASK] if has_mask else None, [each and each[0] for each in kept]
        )

    @property
    def paths(self) -> list[list[str]]:
        """All columns to read."""
        return [path for path in (self.tokens, self.mask, *self.kept) if path is not None]

    @property
    def names(self) -> list[str]:
        """Names for Parquet readers."""
        return [".".join(path) for path in self.paths]

    def rows(self, batch: pa.RecordBatch, *, row: int) -> Rows:
        """The rows of a batch, whose first one has the number ``row``."""
        tokens, lens = self._lists(batch, self.tokens, row)
        num_padding = 0
        if self.mask is not None:
            mask, mask_lens = self._lists(batch, self.mask, row)
            wrong = np.flatnonzero(lens != mask_lens)
            if len(wrong):
                raise InputError(
                    f"{self.location}, row {row + int(wrong[0])}: {_MASK} and the ids differ "
                    f"in length, expected one value for each id"
                )
            is_text = mask != 0
            num_padding = len(tokens) - int(np.count_nonzero(is_text))
            if num_padding:
                before = np.append(0, np.cumsum(is_text, dtype=np.int64))
                ends = np.cumsum(lens)
                tokens, lens = tokens[is_text], before[ends] - before[ends - lens]
        try:
            kept = tuple(_kept(batch, path) for path in self.kept)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.location}: a kept column of rows {row:,} to {row + len(batch) - 1:,} is "
                f"not valid UTF-8 ({error}). Leave it out of --keep."
            ) from error
        return Rows(tokens, lens, kept, num_padding)

    def _lists(
        self, batch: pa.RecordBatch, path: Sequence[str], row: int
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The values of a column of lists, end to end, and the length of each list."""
        # `pyarrow` alone does not import it.
        import pyarrow.compute as pc

        column = column_at(batch, path)
        if column.null_count:
            at = column.is_null().to_pylist().index(True)
            raise self._null(path, row + at, "is null, expected a list of ids")
        lens: NDArray[np.int64] = pc.list_value_length(column).to_numpy().astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]
        values = column.flatten()
        if values.null_count:
            place = values.is_null().to_pylist().index(True)
            at = int(np.searchsorted(np.cumsum(lens), place, "right"))
            raise self._null(path, row + at, "holds a null, expected ids only")
        return values.to_numpy(zero_copy_only=False), lens

    def _null(self, path: Sequence[str], row: int, what: str) -> InputError:
        return InputError(
            f"{self.location}, row {row}: {'.'.join(path)!r} {what}. Leave this row out."
        )


def no_column(location: str, name: str, names: Sequence[str]) -> InputError:
    """The error for a file whose ids are not found."""
    return InputError(
        f"{location}: there is no column {name!r}, found {', '.join(names)}. Name the column of "
        f"the ids with --column."
    )


def _kept(batch: pa.RecordBatch, path: list[str] | None) -> pa.Array:
    if path is None:
        return pa.nulls(len(batch), pa.string())
    return pa.array(map(kept_text, column_values(column_at(batch, path))), pa.string())


def _is_list(kind: pa.DataType) -> bool:
    is_type = (
        *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        *(pa.types.is_list_view, pa.types.is_large_list_view),
    )
    return any(test(kind) for test in is_type)
