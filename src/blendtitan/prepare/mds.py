"""Rows of ids in MDS, the format of MosaicML Streaming.

``index.json`` lists the shards with their columns, sizes and compression; ``item_files`` describes
a shard. The fields of a row are its columns, of which some encodings have a fixed size. A column of
ids is encoded in one of these ways:

    ndarray:TYPE:LENGTH   ids
    ndarray:TYPE          dimensions, then ids. The first byte is the number of dimensions times 4,
                          plus 0 to 3 for their own type, uint8 to uint64
    ndarray               the type, one byte, before that
    bytes                 ids of a type that --dtype names; LLM Foundry used to write int64

Source: ``streaming/base/format/mds/encodings.py``, ``writer.py`` and ``base/compression.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.input_file import InputFile, readable
from blendtitan.prepare.item_files import (
    INDEX,
    check_nothing_kept,
    checked_name,
    field_spans,
    items_of,
    known_fields,
    open_content,
)
from blendtitan.prepare.token_rows import (
    RAW_TYPES,
    RowFile,
    Rows,
    RowSettings,
    no_column,
)

_TYPES = {8: "u1", 9: "i1", 16: "<u2", 17: "<i2", 32: "<u4", 33: "<i4", 64: "<u8", 65: "<i8"}
"""Integer types by the byte that stands for them; others are floats."""

_NAMES = {np.dtype(stored).name: np.dtype(stored) for stored in _TYPES.values()}


@dataclass(frozen=True, slots=True)
class _Data:
    basename: str
    bytes: int


@dataclass(frozen=True, slots=True)
class _Shard:
    format: str
    version: int
    samples: int
    raw_data: Any
    column_names: tuple[str, ...] = ()
    column_encodings: tuple[str, ...] = ()
    column_sizes: tuple[int | None, ...] = ()
    compression: str | None = None
    zip_data: Any = None


def is_mds(index: dict[str, Any]) -> bool:
    """Whether an ``index.json`` is Streaming's."""
    return isinstance(index.get("shards"), list) and "version" in index


def mds_files(
    folder: Path, index: dict[str, Any], name: Path, settings: RowSettings
) -> Iterator[RowFile]:
    """The shards that an ``index.json`` lists; ``name`` is the folder, relative to the output."""
    where = f"{folder / INDEX}"
    check_nothing_kept(folder, settings.keep, "MDS")
    for entry in index["shards"]:
        shard: _Shard = known_fields(_Shard, entry, where)
        raw: _Data = known_fields(_Data, shard.raw_data, where)
        if (shard.format, shard.version) != ("mds", 2):
            raise InputError(
                f"{where}: lists a shard of format {shard.format!r}, version {shard.version}, "
                f"expected 'mds', version 2. CSV and JSON hold text: use blendtitan tokenize."
            )
        number, decode = _column(shard, folder, settings)
        path, is_zipped = _path(folder, shard, raw, where)
        file = InputFile.of(path)
        yield RowFile(
            file=file,
            name=name / raw.basename.removesuffix(".mds"),
            description="MDS",
            read=_reader(file, shard, raw, number, decode, is_zipped),
        )


def _path(folder: Path, shard: _Shard, raw: _Data, where: str) -> tuple[Path, bool]:
    """The file of a shard, and whether it is compressed."""
    if (folder / checked_name(raw.basename, where)).exists() or shard.zip_data is None:
        return folder / raw.basename, False
    if (shard.compression or "").partition(":")[0] != "zstd":
        raise InputError(
            f"{where}: {raw.basename} is compressed with {shard.compression}, expected zstd or no "
            f"compression. Decompress the files first, as Streaming does in its local folder."
        )
    zipped: _Data = known_fields(_Data, shard.zip_data, where)
    return folder / checked_name(zipped.basename, where), True


def _reader(
    file: InputFile,
    shard: _Shard,
    raw: _Data,
    number: int,
    decode: Callable[[memoryview], NDArray[np.integer]],
    is_zipped: bool,
) -> Callable[[], Iterator[Rows]]:
    def read() -> Iterator[Rows]:
        with (
            readable(file.location),
            open_content(file, [raw.bytes], is_zipped=is_zipped) as opened,
        ):
            yield from _rows(opened, file.location, shard, number, decode)

    return read


def _rows(opened: Any, location: str, shard: _Shard, number: int, decode: Any) -> Iterator[Rows]:
    # A size of 0 is that of an empty list of dimensions, and varies.
    sizes = [size or None for size in shard.column_sizes]
    row = 0
    for items in items_of(opened, location, num_items=shard.samples):
        starts, ends = field_spans(items, sizes, number, location=location, row=row)
        content, arrays = memoryview(items.content), []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            try:
                arrays.append(decode(content[start:end]))
            except (ValueError, IndexError, KeyError) as error:
                raise InputError(
                    f"{location}, row {row + len(arrays)}: {shard.column_names[number]!r} cannot "
                    f"be read as {shard.column_encodings[number]}: {error}"
                ) from error
        row += len(arrays)
        yield Rows(np.concatenate(arrays), np.array(list(map(len, arrays)), np.int64))


def _column(
    shard: _Shard, folder: Path, settings: RowSettings
) -> tuple[int, Callable[[memoryview], NDArray[np.integer]]]:
    """Number of the column of ids, and the function that reads its values."""
    names, location = shard.column_names, str(folder)
    if not len(names) == len(shard.column_encodings) == len(shard.column_sizes):
        raise InputError(
            f"{location}: index.json names {len(names):,} columns, but "
            f"{len(shard.column_encodings):,} encodings and {len(shard.column_sizes):,} sizes. "
            f"Copy it again."
        )
    column = settings.column_among(names)
    if column not in names:
        raise no_column(location, column, names)
    number = names.index(column)
    encoding = shard.column_encodings[number]
    kind, _, rest = encoding.partition(":")
    if kind == "bytes":
        if settings.dtype is None:
            raise ConfigError(
                f"{location}: column {column!r} holds bytes, so the type of its ids is not known. "
                f"Give --dtype; older releases of LLM Foundry wrote int64."
            )
        dtype = RAW_TYPES[settings.dtype]
        return number, lambda value: np.frombuffer(value, dtype)
    type_name, _, shape = rest.partition(":")
    if kind != "ndarray" or (type_name and type_name not in _NAMES) or "," in shape:
        raise InputError(
            f"{location}: column {column!r} is encoded as {encoding!r}, expected 'ndarray' of "
            f"integers in one dimension, or 'bytes'. Name the column of the ids with --column. "
            f"Pickled values are never loaded."
        )
    if shape:
        return number, lambda value: np.frombuffer(value, _NAMES[type_name])
    return number, lambda value: _array(value, _NAMES[type_name] if type_name else None)


def _array(value: memoryview, dtype: np.dtype[Any] | None) -> NDArray[np.integer]:
    """The array in a value that names its shape; ValueError if it has several dimensions."""
    at = 0
    if dtype is None:
        if value[0] not in _TYPES:
            raise ValueError(f"an array of type {value[0]}, expected integers")
        dtype, at = np.dtype(_TYPES[value[0]]), 1
    num_dimensions, code = value[at] >> 2, value[at] & 3
    if num_dimensions != 1:
        raise ValueError(f"an array of {num_dimensions} dimensions, expected 1")
    at += 1
    size = int.from_bytes(value[at : at + (1 << code)], "little")
    array = np.frombuffer(value[at + (1 << code) :], dtype)
    if len(array) != size:
        raise ValueError(f"{len(array)} ids, expected {size}")
    return array
