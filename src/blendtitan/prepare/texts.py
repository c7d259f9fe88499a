"""Texts of any input file, with readers for plain text, CSV and TSV."""

import csv
from collections.abc import Iterator
from itertools import count

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import InputFile, ReadOptions
from blendtitan.prepare.json_text import (
    UTF8_BOM,
    Advance,
    BadText,
    check_unambiguous,
    has_json_lines,
    is_unicode,
    lines_of,
    read_json,
    read_lines,
    split_lines,
)
from blendtitan.prepare.streams import read_blocks


def is_cut(file: InputFile, options: ReadOptions) -> bool:
    """Whether reading may begin at any line of a file."""
    # A compressed stream can only be read from its beginning.
    if file.format.compression:
        return False
    match file.format.kind:
        case "lines":
            return True
        case "json":
            return has_json_lines(file)
        case "text":
            return options.txt == "line"
        case _:
            return False


def read_range(
    file: InputFile, start: int, stop: int, *, key: str, options: ReadOptions, advance: Advance
) -> Iterator[str | BadText]:
    """Texts of a range of a file, in order; an unusable text is replaced by a ``BadText``.

    Args:
        file: A file of any format. A file that is not cut is read as a whole.
        start: First byte; in a Parquet file, first row group.
        stop: The byte or row group after the last.
        key: Field or column of the texts. Plain text has none.
        options: How texts are read from files.
        advance: Called with the number of bytes, as stored, that were read.

    Raises:
        InputError: The file cannot be read.
    """
    limit = options.max_document_bytes
    match file.format.kind:
        case "lines":
            return read_lines(file, start, stop, key=key, max_bytes=limit, advance=advance)
        case "json":
            return read_json(file, start, stop, key=key, max_bytes=limit, advance=advance)
        case "text" if options.txt == "line":
            return _read_text_lines(file, start, stop, max_bytes=limit, advance=advance)
        case "text":
            return _read_whole(file, max_bytes=limit, advance=advance)
        case "csv":
            return _read_delimited(file, ",", key=key, max_bytes=limit, advance=advance)
        case "tsv":
            return _read_delimited(file, "\t", key=key, max_bytes=limit, advance=advance)
        case "parquet":
            # Imported on demand: pyarrow takes longer than everything else together.
            from blendtitan.prepare.columns import read_parquet

            return read_parquet(file, start, stop, key=key, max_bytes=limit, advance=advance)
        case "arrow":
            from blendtitan.prepare.columns import read_arrow

            return read_arrow(file, key=key, max_bytes=limit, advance=advance)


def _read_whole(file: InputFile, *, max_bytes: int, advance: Advance) -> Iterator[str | BadText]:
    """The text of a file as one document. A file of white space only holds none."""
    blocks: list[bytes] = []
    num_bytes = 0
    for block in read_blocks(file, advance=advance):
        num_bytes += len(block)
        # A text that is too long is counted, not kept.
        blocks = [*blocks, block] if num_bytes <= max_bytes else []
    if num_bytes > max_bytes:
        yield BadText.too_long(0, num_bytes, max_bytes, what="file")
        return
    content = b"".join(blocks).removeprefix(UTF8_BOM)
    if content.strip():
        yield _decoded(content, place=0)


def _read_text_lines(
    file: InputFile, start: int, stop: int, *, max_bytes: int, advance: Advance
) -> Iterator[str | BadText]:
    """The lines that start in a range of a file, each as a document. Blank lines are skipped."""
    for place, line in lines_of(file, start, stop, max_bytes=max_bytes, advance=advance):
        if isinstance(line, int):
            yield BadText.too_long(place, line, max_bytes, what="line")
        elif line.strip():
            yield _decoded(line.removesuffix(b"\r"), place=place)


def _decoded(content: bytes, *, place: int) -> str | BadText:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        return BadText("byte", place, f"not valid UTF-8: {error}")


def _read_delimited(
    file: InputFile, delimiter: str, *, key: str, max_bytes: int, advance: Advance
) -> Iterator[str | BadText]:
    """Texts of a column of a CSV or TSV file, whose first line names the columns."""
    # A setting of the whole process; jobs of other formats do not use it.
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
        if len(fields) not in (0, len(names)):
            reason = f"found {len(fields)} fields, expected {len(names)}"
            yield BadText("row", row, reason)
        elif fields:
            yield _field(fields[column], key, row)


def _column_names(rows: Iterator[list[str]], location: str) -> list[str]:
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


def _field(text: str, key: str, row: int) -> str | BadText:
    if not text:
        return BadText("row", row, f"{key!r} is an empty string")
    if not is_unicode(text):
        return BadText("row", row, f"{key!r} is not valid UTF-8")
    return text


def _csv_lines(file: InputFile, max_bytes: int, advance: Advance) -> Iterator[str]:
    """Lines with their ends. An invalid byte becomes half a surrogate pair in its field."""
    for place, line in split_lines(read_blocks(file, advance=advance), max_line_bytes=max_bytes):
        if isinstance(line, int):
            raise InputError(
                f"{file.location}, byte {place:,}: the line has {line:,} bytes, allowed are "
                f"{max_bytes:,} (--max-document-bytes)"
            )
        line = line.removeprefix(UTF8_BOM) if place == 0 else line
        yield line.decode(errors="surrogateescape") + "\n"
