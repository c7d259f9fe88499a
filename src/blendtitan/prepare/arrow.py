"""Texts of Arrow IPC files and streams, such as ``datasets.save_to_disk`` and Feather write."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from blendtitan.errors import InputError
from blendtitan.prepare.columns import column_path, column_texts
from blendtitan.prepare.inputs import InputFile, readable
from blendtitan.prepare.jsonl import BadText

_FILE_MAGIC = b"ARROW1"
_OLD_FEATHER_MAGIC = b"FEA1"


def read_arrow(
    file: InputFile, *, key: str, max_bytes: int, advance: Callable[[int], None]
) -> Iterator[str | BadText]:
    """Texts of one column, in order.

    Args:
        file: An Arrow IPC file or stream.
        key: Name of the column, or path of a nested field.
        max_bytes: Longest text.
        advance: Called with the number of bytes of the file that were read.

    Raises:
        InputError: The file cannot be read, or has no such column of strings.
    """
    with _opened(file) as (opened, schema, batches):
        path = column_path(schema, key, file.location)
        row = at = 0
        for batch in batches:
            advance(opened.tell() - at)
            at = opened.tell()
            yield from column_texts(batch, path, row=row, max_bytes=max_bytes)
            row += len(batch)
        advance(file.num_bytes - at)


@contextmanager
def _opened(file: InputFile) -> Generator[tuple[Any, pa.Schema, Iterator[pa.RecordBatch]]]:
    """The file, its schema and its batches, as long as the block lasts."""
    with readable(file.location):
        try:
            with file.open() as opened:
                magic = opened.read(len(_FILE_MAGIC))
                opened.seek(0)
                if magic.startswith(_OLD_FEATHER_MAGIC):
                    raise InputError(
                        f"{file.location}: is of Feather's version 1, expected Arrow's format "
                        f"(version 2). Write it again with pyarrow.feather.write_feather."
                    )
                if magic == _FILE_MAGIC:
                    reader = pa.ipc.open_file(opened)
                    batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
                    yield opened, reader.schema, batches
                else:
                    stream = pa.ipc.open_stream(opened)
                    yield opened, stream.schema, iter(stream)
        except pa.ArrowException as error:
            raise InputError(f"{file.location}: cannot be read as Arrow data: {error}") from error
