"""Texts of any input file: which reader reads which format."""

from collections.abc import Callable, Iterator

from blendtitan.prepare.file_formats import ReadOptions
from blendtitan.prepare.inputs import InputFile
from blendtitan.prepare.jsonl import BadText, has_json_lines, read_json, read_lines

_DELIMITERS = {"csv": ",", "tsv": "\t"}


def is_cut(file: InputFile, options: ReadOptions) -> bool:
    """Whether reading may begin at any line of a file.

    Raises:
        InputError: The file cannot be read.
    """
    # What is compressed as one stream can only be read from its beginning.
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
    file: InputFile,
    start: int,
    stop: int,
    *,
    key: str,
    options: ReadOptions,
    advance: Callable[[int], None],
) -> Iterator[str | BadText]:
    """Texts of a range of a file, in order, with a ``BadText`` in place of each unusable one.

    Args:
        file: A file of any format. One that is not cut is read as a whole.
        start: First byte; in a Parquet file, first row group.
        stop: The byte or row group after the last.
        key: Field or column of the texts. Plain text has none.
        options: How texts are taken from files.
        advance: Called with the number of bytes, as stored, that were read.

    Raises:
        InputError: The file cannot be read.
    """
    max_bytes = options.max_document_bytes
    match file.format.kind:
        case "lines":
            return read_lines(file, start, stop, key=key, max_bytes=max_bytes, advance=advance)
        case "json":
            return read_json(file, start, stop, key=key, max_bytes=max_bytes, advance=advance)
        case "text":
            # Imported where they are needed, as most inputs are JSON.
            from blendtitan.prepare.plain_text import read_text_lines, read_whole

            if options.txt == "line":
                return read_text_lines(file, start, stop, max_bytes=max_bytes, advance=advance)
            return read_whole(file, max_bytes=max_bytes, advance=advance)
        case "csv" | "tsv" as kind:
            from blendtitan.prepare.plain_text import read_delimited

            delimiter = _DELIMITERS[kind]
            return read_delimited(file, delimiter, key=key, max_bytes=max_bytes, advance=advance)
        case "parquet":
            from blendtitan.prepare.parquet import read_column

            return read_column(file, start, stop, key=key, max_bytes=max_bytes, advance=advance)
        case "arrow":
            from blendtitan.prepare.arrow import read_arrow

            return read_arrow(file, key=key, max_bytes=max_bytes, advance=advance)
