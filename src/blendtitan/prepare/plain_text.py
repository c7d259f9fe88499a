"""Texts of ``.txt`` files, one a file or one a line, and of CSV and TSV files."""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.jsonl import (
    BadText,
    check_unambiguous,
    is_unicode,
    lines_of,
    split_lines,
    too_long,
)
from blendtitan.prepare.streams import read_blocks

_UTF8_BOM = b"\xef\xbb\xbf"


def read_whole(
    file: InputFile, *, max_bytes: int, advance: Callable[[int], None]
) -> Iterator[str | BadText]:
    """The text of a file, as one document. A file of white space only holds none.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    blocks: list[bytes] = []
    num_bytes = 0
    for block in read_blocks(file, advance=advance):
        num_bytes += len(block)
        # What is too long is counted, not kept.
        blocks = [*blocks, block] if num_bytes <= max_bytes else []
    if num_bytes > max_bytes:
        yield too_long(0, num_bytes, max_bytes, what="file")
        return
    content = b"".join(blocks).removeprefix(_UTF8_BOM)
    if content.strip():
        yield _decoded(content, place=0)


def read_text_lines(
    file: InputFile, start: int, stop: int, *, max_bytes: int, advance: Callable[[int], None]
) -> Iterator[str | BadText]:
    """The lines that start in a range of a file, each as a document. Blank lines are passed over.

    Raises:
        InputError: The file cannot be read, or ends too early.
    """
    for place, line in lines_of(file, start, stop, max_bytes=max_bytes, advance=advance):
        if isinstance(line, int):
            yield too_long(place, line, max_bytes, what="line")
        elif line.strip():
            yield _decoded(line.removesuffix(b"\r"), place=place)


def read_delimited(
    file: InputFile,
    delimiter: str,
    *,
    key: str,
    max_bytes: int,
    advance: Callable[[int], None],
) -> Iterator[str | BadText]:
    """Texts of a column of a CSV or TSV file, whose first line names the columns.

    Args:
        file: The file.
        delimiter: Between fields. Fields may be quoted, and then hold line ends.
        key: Name of the column.
        max_bytes: Longest field.
        advance: Called with the number of bytes of the file, as stored, that were read.

    Raises:
        InputError: The file cannot be read, or has no such column, or a field or line has no end
            within ``max_bytes``.
    """
    # Of the whole process; jobs of other formats do not use it.
    csv.field_size_limit(max_bytes)
    rows = csv.reader(_csv_lines(file, max_bytes, advance), delimiter=delimiter, strict=True)
    names = _column_names(rows, file.location)
    if key not in names:
        raise InputError(f"{file.location}: there is no column {key!r}, found {', '.join(names)}")
    check_unambiguous(key, names, file.location)
    column = names.index(key)
    for row in count():
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise InputError(
                    f"{file.location}, row {row:,}: a field is longer than {max_bytes:,} bytes "
                    f"(--max-document-bytes), or its quotes are not closed"
                ) from error
            yield BadText("row", row, f"not a row of CSV: {error}")
            continue
        if fields:
            yield _field(fields, column, names, row)


def _column_names(rows: Iterator[list[str]], location: str) -> list[str]:
    """The names in the first line.

    Raises:
        InputError: It is no line of CSV in UTF-8.
    """
    try:
        names = next(rows, [])
    except csv.Error as error:
        raise InputError(
            f"{location}: the first line is not a row of CSV ({error}), expected the names of the "
            f"columns, and lines that end in LF or CRLF. Where they end in CR alone, convert them, "
            f"as with tr '\\r' '\\n', and close all quotes."
        ) from error
    if not all(map(is_unicode, names)):
        raise InputError(
            f"{location}: the first line is not valid UTF-8, expected the names of the columns in "
            f"UTF-8. Convert the file, as with iconv --from-code UTF-16 --to-code UTF-8."
        )
    return names


def _field(fields: list[str], column: int, names: list[str], row: int) -> str | BadText:
    if len(fields) != len(names):
        return BadText("row", row, f"found {len(fields)} fields, expected {len(names)}")
    text = fields[column]
    if not text:
        return BadText("row", row, f"{names[column]!r} is an empty string")
    if not is_unicode(text):
        return BadText("row", row, f"{names[column]!r} is not valid UTF-8")
    return text


def _csv_lines(file: InputFile, max_bytes: int, advance: Callable[[int], None]) -> Iterator[str]:
    """Lines with their ends. A bad byte becomes half a surrogate pair, to be found in its field."""
    blocks: Iterable[bytes] = read_blocks(file, advance=advance)
    for place, line in split_lines(blocks, max_line_bytes=max_bytes):
        if isinstance(line, int):
            raise InputError(
                f"{file.location}, byte {place:,}: the line has {line:,} bytes, allowed are "
                f"{max_bytes:,} (--max-document-bytes)"
            )
        line = line.removeprefix(_UTF8_BOM) if place == 0 else line
        yield line.decode(errors="surrogateescape") + "\n"


def _decoded(content: bytes, *, place: int) -> str | BadText:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        return BadText("byte", place, f"not valid UTF-8: {error}")
