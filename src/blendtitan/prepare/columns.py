"""Texts of a column of Arrow data, whichever of its types holds them."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from blendtitan.errors import InputError
from blendtitan.prepare.jsonl import BadText, check_unambiguous, too_long

# Documents are large: few rows are many bytes.
BATCH_ROWS = 256
_SLICE_BYTES = 1 << 22

_TEXT_TYPES = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    pa.types.is_fixed_size_binary,
)


def column_path(schema: pa.Schema, key: str, location: str) -> list[str]:
    """Where a column of texts is: its name, or the names of a field in nested columns.

    Raises:
        InputError: There is none, or more than one, or its type holds no texts.
    """
    path = [key] if key in schema.names else key.split(".")
    found: Any = schema
    for name in path:
        names = getattr(found, "names", []) if isinstance(found, pa.Schema) else _field_names(found)
        if name not in names:
            raise InputError(
                f"{location}: there is no column {key!r}, found {', '.join(schema.names)}"
            )
        check_unambiguous(name, names, location)
        found = found.field(name).type
    if not _holds_texts(found):
        raise InputError(f"{location}: column {key!r} is of type {found}, expected strings")
    return path


def column_texts(
    batch: pa.RecordBatch, path: Sequence[str], *, row: int, max_bytes: int
) -> Iterator[str | BadText]:
    """Texts of a column, with a ``BadText`` in the place of each that cannot be used.

    Args:
        batch: Some rows.
        path: Where the column is: see ``column_path``.
        row: Number of the first row in the file.
        max_bytes: Longest text.
    """
    column: Any = batch.column(batch.schema.names.index(path[0]))
    for name in path[1:]:
        column = _struct_field(column, name)
    key = ".".join(path)
    step = max(1, min(BATCH_ROWS, _SLICE_BYTES * len(column) // (column.nbytes + 1)))
    for start in range(0, len(column), step):
        for value in _as_bytes(column.slice(start, step)):
            yield _text(value, key=key, row=row, max_bytes=max_bytes)
            row += 1


def _struct_field(column: Any, name: str) -> Any:
    # `pyarrow` alone does not import it, and few keys are nested.
    import pyarrow.compute

    # Unlike `field`, this keeps the nulls of the row.
    return pyarrow.compute.struct_field(column, name)  # pyright: ignore[reportAttributeAccessIssue]


def _as_bytes(column: Any) -> list[bytes | None]:
    # As bytes, so that a text that is not UTF-8 costs no neighbour.
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()).to_pylist()


def _text(value: bytes | None, *, key: str, row: int, max_bytes: int) -> str | BadText:
    if value is None:
        return BadText("row", row, f"{key!r} is null, expected a string")
    if not value:
        return BadText("row", row, f"{key!r} is an empty string")
    if len(value) > max_bytes:
        return too_long(row, len(value), max_bytes, what="text", unit="row")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        return BadText("row", row, f"{key!r} is not valid UTF-8: {error}")


def _field_names(found: Any) -> list[str]:
    return [field.name for field in found] if pa.types.is_struct(found) else []


def _holds_texts(found: Any) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    return any(is_type(found) for is_type in _TEXT_TYPES)
