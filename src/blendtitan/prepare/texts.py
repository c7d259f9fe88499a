"""Texts of any input file, with readers for plain text, CSV and TSV."""

import csv
from collections.abc import Callable, Iterator
from itertools import count

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile, Kind, ReadOptions
from blendtitan.prepare.json_text import has_json_lines, read_json, read_lines
from blendtitan.prepare.streams import (
    UTF8_BOM,
    BadText,
    Kept,
    Text,
    TextRange,
    check_unambiguous,
    is_unicode,
    kept_text,
    split_lines,
)

Texts = Iterator[Text | BadText]


def is_cut(file: InputFile, options: ReadOptions) -> bool:
    """Whether reading may begin at any line of a file."""
    # A compressed stream can only be read from its beginning.
    if file.format.compression:
        return False
    kind = file.format.kind
    return (
        kind == "lines"
        or (kind == "text" and options.txt == "line")
        or (kind == "json" and has_json_lines(file))
    )


def read_range(source: TextRange) -> Texts:
    """Texts of a range of a file, in order; an unusable text is replaced by a ``BadText``.

    Raises:
        InputError: The file cannot be read.
    """
    return _READERS[source.file.format.kind](source)


def _read_text(source: TextRange) -> Texts:
    if source.options.txt == "file":
        yield from _read_whole(source)
        return
    for place, line in source.lines():
        if isinstance(line, int):
            yield BadText.too_long(place, line, source.max_bytes, what="line")
        elif line.strip():
            yield _decoded(line.removesuffix(b"\r"), place, source)


def _read_whole(source: TextRange) -> Texts:
    """The text of a file as one document; nothing for a file of white space."""
    blocks: list[bytes] = []
    num_bytes = 0
    for block in source.blocks():
        num_bytes += len(block)
        # A text that is too long is counted, not kept.
        blocks = [*blocks, block] if num_bytes <= source.max_bytes else []
    content = b"".join(blocks).removeprefix(UTF8_BOM)
    if num_bytes > source.max_bytes:
        yield BadText.too_long(0, num_bytes, source.max_bytes, what="file")
    elif content.strip():
        yield _decoded(content, 0, source)


def _decoded(content: bytes, place: int, source: TextRange) -> Text | BadText:
    try:
        return place, content.decode(), source.nothing_kept
    except UnicodeDecodeError as error:
        return BadText("byte", place, f"not valid UTF-8: {error}")


def _read_delimited(source: TextRange, delimiter: str) -> Texts:
    """Texts of a column of a CSV or TSV file, whose first line names the columns."""
    # A setting of the whole process; jobs of other formats do not use it.
    csv.field_size_limit(source.max_bytes)
    key, location = source.key, source.file.location
    rows = csv.reader(_csv_lines(source), delimiter=delimiter, strict=True)
    names = _column_names(rows, location)
    if key not in names:
        raise InputError(f"{location}: there is no column {key!r}, found {', '.join(names)}")
    check_unambiguous(key, names, location)
    column = names.index(key)
    for name in filter(names.count, source.keep):
        check_unambiguous(name, names, location)
    kept_columns = [names.index(name) if name in names else None for name in source.keep]
    for row in count():
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise InputError(
                    f"{location}, row {row:,}: a field is longer than {source.max_bytes:,} bytes "
                    f"(--max-document-bytes), or its quotes are not closed"
                ) from error
            yield BadText("row", row, f"not a row of CSV: {error}")
            continue
        if len(fields) not in (0, len(names)):
            reason = f"found {len(fields)} fields, expected {len(names)}"
            yield BadText("row", row, reason)
        elif fields:
            kept = tuple(at if at is None else kept_text(fields[at]) for at in kept_columns)
            yield _field(fields[column], key, row, kept)


def _column_names(rows: Iterator[list[str]], location: str) -> list[str]:
    try:
        names = next(rows, [])
    except csv.Error as error:
        raise InputError(
            f"{location}: the first line is not a row of CSV ({error}), expected the names of the "
            f"columns, and lines that end in LF or CRLF. If they end in CR alone, convert them, "
            f"as with tr '\\r' '\\n', and close all quotes."
        ) from error
    if not all(map(is_unicode, names)):
        raise InputError(
            f"{location}: the first line is not valid UTF-8, expected the names of the columns in "
            f"UTF-8. Convert the file, as with iconv --from-code UTF-16 --to-code UTF-8."
        )
    return names


def _field(text: str, key: str, row: int, kept: Kept) -> Text | BadText:
    if not text:
        return BadText("row", row, f"{key!r} is an empty string")
    if not is_unicode(text):
        return BadText("row", row, f"{key!r} is not valid UTF-8")
    return row, text, kept


def _csv_lines(source: TextRange) -> Iterator[str]:
    """Lines with their ends. An invalid byte becomes half a surrogate pair in its field."""
    for place, line in split_lines(source.blocks(), max_line_bytes=source.max_bytes):
        if isinstance(line, int):
            raise InputError(
                f"{source.file.location}, byte {place:,}: the line has {line:,} bytes, more than "
                f"the {source.max_bytes:,} allowed (--max-document-bytes)"
            )
        line = line.removeprefix(UTF8_BOM) if place == 0 else line
        yield line.decode(errors="surrogateescape") + "\n"


# Imported on demand: pyarrow takes longer than everything else together.
def _read_parquet(source: TextRange) -> Texts:
    from blendtitan.prepare.columns import read_parquet

    return read_parquet(source)


def _read_arrow(source: TextRange) -> Texts:
    from blendtitan.prepare.columns import read_arrow

    return read_arrow(source)


_READERS: dict[Kind, Callable[[TextRange], Texts]] = {
    "lines": read_lines,
    "json": read_json,
    "text": _read_text,
    "csv": lambda source: _read_delimited(source, ","),
    "tsv": lambda source: _read_delimited(source, "\t"),
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
