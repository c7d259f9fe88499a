"""Files of items behind their offsets, the layout that MDS and litdata have in common.

    number of items N, uint32
    N + 1 offsets of the items from the start of the file, the last one its end, uint32
    in MDS only: the columns, as JSON
    the items, end to end

An item has fields. The sizes of those that vary, uint32, come first, then all fields.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, InputError
from blendtitan.files import DamagedFileError
from blendtitan.json_files import checked, read_json
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.streams import zstd

INDEX = "index.json"
_MOST_INDEX_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 24


class Items(NamedTuple):
    """Consecutive items."""

    content: bytes
    bounds: NDArray[np.int64]
    """Start of each item in ``content``, then the end of the last."""


def read_index(path: Path) -> dict[str, Any]:
    """The content of an ``index.json``."""
    try:
        return read_json(path, dict[str, Any], limit_bytes=_MOST_INDEX_BYTES)
    except (DamagedFileError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Copy it again.") from error


def check_nothing_kept(folder: Path, keep: Sequence[str], kind: str) -> None:
    """Check that ``--keep`` is not given for files that have no columns to record."""
    if keep:
        raise ConfigError(
            f"{folder}: --keep records columns of Parquet and Arrow files only, and this is "
            f"{kind}. Leave --keep out."
        )


def known_fields(kind: type[Any], value: Any, where: str) -> Any:
    """A dataclass, from the keys of a JSON object that are its fields."""
    names = kind.__dataclass_fields__
    try:
        if not isinstance(value, dict):
            raise DamagedFileError("is not an object")
        return checked(kind, {name: value[name] for name in names if name in value})
    except DamagedFileError as error:
        raise InputError(f"{where}: {error}. Copy it again.") from error


def checked_name(name: str, where: str) -> str:
    """The name of a file below the folder of its ``index.json``."""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"{where}: lists the file {name!r}, expected one below this folder")
    return name


def items_of(opened: BinaryIO, location: str, *, num_items: int) -> Iterator[Items]:
    """The items of an open file, in blocks.

    Args:
        opened: The file, or its decompressed content.
        location: Its name, for errors.
        num_items: Number of items, according to the ``index.json``.

    Raises:
        InputError: The number of items differs, or the offsets contradict the size.
    """
    num_bytes = opened.seek(0, os.SEEK_END)
    opened.seek(0)
    head = opened.read(4 * (num_items + 2))
    offsets = np.frombuffer(head, "<u4", len(head) // 4)[1:].astype(np.int64)
    found = int.from_bytes(head[:4], "little")
    if len(head) < 4 * (num_items + 2) or found != num_items:
        raise InputError(
            f"{location}: holds {found:,} rows, expected {num_items:,}, according to "
            f"{INDEX}. Copy the folder again."
        )
    is_growing = offsets[0] >= len(head) and (np.diff(offsets) >= 0).all()
    if not is_growing or offsets[-1] > num_bytes:
        raise InputError(
            f"{location}: its rows are at bytes {offsets[0]:,} to {offsets[-1]:,}, expected "
            f"growing offsets from {len(head):,} to {num_bytes:,}. Copy it again."
        )
    first = 0
    while first < num_items:
        stop = int(np.searchsorted(offsets, offsets[first] + _BLOCK_BYTES, "right")) - 1
        bounds = offsets[first : max(stop, first + 1) + 1]
        opened.seek(int(bounds[0]))
        content = opened.read(int(bounds[-1] - bounds[0]))
        if len(content) < bounds[-1] - bounds[0]:
            raise InputError(f"{location}: ends before byte {bounds[-1]:,}. Copy it again.")
        yield Items(content, bounds - bounds[0])
        first += len(bounds) - 1


def field_spans(
    items: Items, sizes: Sequence[int | None], field: int, *, location: str, row: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of one field in each item.

    Args:
        items: The items.
        sizes: Size of each field; None: it varies.
        field: The field.
        location: File, for errors.
        row: Number of the first item, for errors.
    """
    starts, lens = items.bounds[:-1], np.diff(items.bounds)
    num_varying = sum(size is None for size in sizes)
    at = 0
    stored = np.zeros((len(lens), num_varying), np.int64)
    is_wrong = lens < 4 * num_varying
    if num_varying and not is_wrong.any():
        content = np.frombuffer(items.content, np.uint8)
        places = starts[:, None] + np.arange(4 * num_varying)
        stored = content[places].copy().view("<u4").astype(np.int64)
    all_sizes = np.empty((len(lens), len(sizes)), np.int64)
    for number, size in enumerate(sizes):
        all_sizes[:, number] = stored[:, at] if size is None else size
        at += size is None
    is_wrong |= 4 * num_varying + all_sizes.sum(axis=1) != lens
    if is_wrong.any():
        raise InputError(
            f"{location}, row {row + int(np.argmax(is_wrong))}: the sizes of its columns do not "
            f"sum to its own size. Copy the file again."
        )
    begins = starts + 4 * num_varying + all_sizes[:, :field].sum(axis=1)
    return begins, begins + all_sizes[:, field]


def open_content(file: InputFile, sizes: Collection[int], *, is_zipped: bool) -> BinaryIO:
    """Open a file, or what it holds if zstd compressed it as a whole: one of ``sizes`` bytes."""
    if not is_zipped:
        if file.num_bytes not in sizes:
            raise InputError(
                f"{file.location}: found {file.num_bytes:,} bytes, expected {min(sizes):,}, "
                f"according to {INDEX}. Copy the folder again."
            )
        return file.open()
    with file.open() as opened:
        content = unzipped(opened.read(), max(sizes), file.location)
    if len(content) not in sizes:
        raise InputError(
            f"{file.location}: holds {len(content):,} bytes after decompression, expected "
            f"{min(sizes):,}, according to {INDEX}. Copy the folder again."
        )
    return BytesIO(content)


def unzipped(data: bytes, most_bytes: int, where: str) -> bytes:
    """Up to ``most_bytes`` bytes that zstd compressed."""
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(data, max_length=most_bytes + 1)
    except zstd.ZstdError as error:
        raise InputError(f"{where}: cannot be decompressed ({error}). Copy it again.") from error
    if not decompressor.eof:
        raise InputError(
            f"{where}: compressed data is cut off, or holds more than {most_bytes:,} bytes. Copy "
            f"the file again."
        )
    return content
