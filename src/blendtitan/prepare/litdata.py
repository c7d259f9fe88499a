r"""Rows of ids in litdata's chunks.

``index.json`` lists the chunks and describes the items in them: ``data_format`` names the
serializer of each leaf, ``data_spec`` the tree that they form. ``item_files`` describes a chunk.
Three item loaders wrote it:

- ``TokensLoader``: an item is an array of ids, without sizes. Reading with litdata ignores where
  items begin, and cuts each chunk into blocks; here, an item is a row.
- ``PyTreeLoader``: the fields of an item are its leaves, none of fixed size. Ids are a leaf of
  type ``no_header_numpy`` or ``no_header_tensor``, followed by the number of its type.
- The same for dictionaries that hold lists: the chunk ends in an Arrow file of all rows, its size
  (uint32) and ``LDARW01\0``.

zstd compresses a chunk (``chunk``, in files named ``*.zstd.bin``), runs of items (``batch``) or
each item (``sample``). A chunk of runs begins with its own header:

    ``LDFZ01`` and two zero bytes, version 1 and flags as uint16, number of items N, items of a run,
    number of runs R, as uint32
    N + 1   offsets of the items in the decompressed runs, uint32
    R       first item and number of items, uint32; offset in the file, uint64; size there and
            decompressed, uint32

Source: ``streaming/writer.py``, ``item_loader.py``, ``serializers.py`` and ``framed_zstd.py``.
"""

import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendtitan.errors import InputError
from blendtitan.prepare.columns import readable_as
from blendtitan.prepare.input_file import InputFile
from blendtitan.prepare.item_files import (
    INDEX,
    Items,
    check_nothing_kept,
    checked_name,
    field_spans,
    items_of,
    known_fields,
    open_content,
    unzipped,
)
from blendtitan.prepare.token_rows import (
    RowFile,
    Rows,
    RowSettings,
    no_column,
    rows_of_arrow,
)

_NUMPY_TYPES = dict(enumerate(("i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8")))
_TORCH_TYPES = {11: "u1", 12: "i1", 13: "<i2", 14: "<i2", 15: "<i4", 16: "<i4"} | {
    17: "<i8",
    18: "<i8",
    20: "<u2",
}
"""Integer types by their numbers; others are floats or objects."""

_TYPES = {"no_header_numpy": _NUMPY_TYPES, "no_header_tensor": _TORCH_TYPES}
_ARROW_END = b"LDARW01\0"
_RUNS_MAGIC = b"LDFZ01\0\0"
_RUNS_HEADER = struct.Struct("<8sHHIII")
_RUN = np.dtype(
    [("first", "<u4"), ("items", "<u4"), ("at", "<u8"), ("size", "<u4"), ("raw", "<u4")]
)
_MOST_ITEM_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Chunk:
    filename: str
    chunk_size: int
    chunk_bytes: int
    """Size without the compression of whole chunks."""

    dim: int | None = None
    """Number of ids in all items, if they have no sizes."""


@dataclass(frozen=True, slots=True)
class _Config:
    data_format: tuple[str, ...]
    data_spec: str | None = None
    compression: str | None = None
    compression_level: str | None = None
    encryption: Any = None
    item_loader: str = "PyTreeLoader"


def is_litdata(index: dict[str, Any]) -> bool:
    """Whether an ``index.json`` is litdata's."""
    return isinstance(index.get("chunks"), list) and isinstance(index.get("config"), dict)


def litdata_files(
    folder: Path, index: dict[str, Any], name: Path, settings: RowSettings
) -> Iterator[RowFile]:
    """The chunks that an ``index.json`` lists; ``name`` is the folder, relative to the output."""
    where = f"{folder / INDEX}"
    check_nothing_kept(folder, settings.keep, "litdata")
    config: _Config = known_fields(_Config, index["config"], where)
    _check_config(config, where)
    for entry in index["chunks"]:
        chunk: _Chunk = known_fields(_Chunk, entry, where)
        path = folder / checked_name(chunk.filename, where)
        reader = _ChunkReader(InputFile.of(path), chunk, config, settings)
        stem = re.sub(r"(\.zstd(:\d+)?)?\.bin$", "", chunk.filename)
        yield RowFile(file=reader.file, name=name / stem, description="litdata", read=reader.rows)


def _check_config(config: _Config, where: str) -> None:
    if config.encryption is not None:
        raise InputError(
            f"{where}: the chunks are encrypted, expected chunks without encryption. Write them "
            f"again with litdata, without encryption."
        )
    if config.item_loader not in ("PyTreeLoader", "TokensLoader"):
        raise InputError(
            f"{where}: the item loader is {config.item_loader}, expected PyTreeLoader or "
            f"TokensLoader. For Parquet files that litdata indexed, name the Parquet files."
        )
    if config.compression and config.compression.partition(":")[0] != "zstd":
        raise InputError(
            f"{where}: the chunks are compressed with {config.compression}, expected zstd or no "
            f"compression. Write them again without compression."
        )


@dataclass(frozen=True, slots=True)
class _ChunkReader:
    file: InputFile
    chunk: _Chunk
    config: _Config
    settings: RowSettings

    @property
    def level(self) -> str:
        """What is compressed: ``chunk``, ``batch``, ``sample`` or nothing."""
        return (self.config.compression_level or "chunk") if self.config.compression else ""

    @property
    def sizes(self) -> tuple[int, int]:
        """Size of the chunk by this release of litdata, and by those that left out the offsets."""
        num_bytes = self.chunk.chunk_bytes
        return num_bytes, num_bytes + 4 * (self.chunk.chunk_size + 2)

    def rows(self) -> Iterator[Rows]:
        """All rows of the chunk."""
        is_zipped = self.level == "chunk" and ".zstd" in self.chunk.filename
        with (
            readable_as(self.file.location, "a chunk of litdata"),
            open_content(self.file, self.sizes, is_zipped=is_zipped) as opened,
        ):
            if (arrow := _arrow_file(opened)) is not None:
                yield from rows_of_arrow(arrow, self.file.location, self.settings)
            else:
                yield from self._rows(opened)

    def _rows(self, opened: BinaryIO) -> Iterator[Rows]:
        leaf, dtype = self._leaf()
        # Older releases do not name the loader.
        has_sizes = self.config.item_loader != "TokensLoader" and self.chunk.dim is None
        sizes = [None] * self._num_leaves if has_sizes else []
        location, row = self.file.location, 0
        for items in self._items(opened):
            starts, ends = items.bounds[:-1], items.bounds[1:]
            if sizes:
                starts, ends = field_spans(items, sizes, leaf, location=location, row=row)
            lens, rest = np.divmod(ends - starts, dtype.itemsize)
            if rest.any():
                raise InputError(
                    f"{location}, row {row + int(np.argmax(rest != 0))}: holds a part of an id, "
                    f"expected a multiple of {dtype.itemsize} bytes. Copy the file again."
                )
            pieces = zip(starts.tolist(), lens.tolist(), strict=True)
            arrays = [
                np.frombuffer(items.content, dtype, count, at) for at, count in pieces if count
            ]
            row += len(lens)
            yield Rows(np.concatenate([np.empty(0, dtype), *arrays]), lens)

    @property
    def _num_leaves(self) -> int:
        return len(self.config.data_format)

    def _leaf(self) -> tuple[int, np.dtype[Any]]:
        """Number and type of the leaf that holds the ids."""
        names = _leaf_names(self.config, self.file.location)
        name = self.settings.column_among(names)
        if len(names) == 1 and self.settings.column is None:
            name = names[0]
        if name not in names:
            raise no_column(self.file.location, name, names)
        leaf = names.index(name)
        kind, _, number = self.config.data_format[leaf].partition(":")
        stored = _TYPES.get(kind, {}).get(int(number) if number.isdecimal() else -1)
        if stored is None:
            raise InputError(
                f"{self.file.location}: {name or 'its leaf'!r} is of type "
                f"{self.config.data_format[leaf]!r}, expected an array of integers in one "
                f"dimension (no_header_numpy or no_header_tensor). Name the column of the ids with "
                f"--column. Pickled values are never loaded."
            )
        return leaf, np.dtype(stored)

    def _items(self, opened: BinaryIO) -> Iterator[Items]:
        if self.level == "batch":
            yield from self._items_of_runs(opened)
            return
        location, num_items = self.file.location, self.chunk.chunk_size
        for items in items_of(opened, location, num_items=num_items):
            yield self._unzipped(items) if self.level == "sample" else items

    def _unzipped(self, items: Items) -> Items:
        contents = [
            unzipped(items.content[start:end], _MOST_ITEM_BYTES, self.file.location)
            for start, end in zip(items.bounds[:-1], items.bounds[1:], strict=True)
        ]
        bounds = np.append(0, np.cumsum(list(map(len, contents)), dtype=np.int64))
        return Items(b"".join(contents), bounds)

    def _items_of_runs(self, opened: BinaryIO) -> Iterator[Items]:
        location, num_items = self.file.location, self.chunk.chunk_size
        head = opened.read(_RUNS_HEADER.size)
        if len(head) < _RUNS_HEADER.size or not head.startswith(_RUNS_MAGIC):
            raise self._bad_runs("has no header of compressed runs")
        _, version, _, found, _, num_runs = _RUNS_HEADER.unpack(head)
        if (version, found) != (1, num_items) or num_runs > num_items:
            raise self._bad_runs(f"has version {version}, {found:,} items and {num_runs:,} runs")
        offsets = self._array(opened, "<u4", num_items + 1).astype(np.int64)
        runs = self._array(opened, _RUN, num_runs)
        if runs["items"].sum(dtype=np.int64) != num_items or (np.diff(offsets) < 0).any():
            raise self._bad_runs("lists runs that do not hold its items")
        first = 0
        for run in runs:
            stop = first + int(run["items"])
            bounds = offsets[first : stop + 1] - offsets[first]
            end = int(run["at"]) + int(run["size"])
            if run["first"] != first or bounds[-1] != run["raw"] or end > self.file.num_bytes:
                raise self._bad_runs(f"has a run of {run['raw']:,} bytes for {bounds[-1]:,}")
            opened.seek(int(run["at"]))
            yield Items(unzipped(opened.read(int(run["size"])), int(bounds[-1]), location), bounds)
            first = stop

    def _array(self, opened: BinaryIO, dtype: Any, count: int) -> NDArray[Any]:
        data = opened.read(count * np.dtype(dtype).itemsize)
        if len(data) < count * np.dtype(dtype).itemsize:
            raise self._bad_runs("ends within its header")
        return np.frombuffer(data, dtype)

    def _bad_runs(self, what: str) -> InputError:
        return InputError(
            f"{self.file.location}: {what}, expected {self.chunk.chunk_size:,} items, "
            f"according to index.json. Copy the folder again."
        )


def _arrow_file(opened: BinaryIO) -> Any:
    """The Arrow file at the end of a chunk. None: there is none, and the chunk is at its start."""
    num_bytes, end = opened.seek(0, os.SEEK_END), 4 + len(_ARROW_END)
    opened.seek(max(0, num_bytes - end))
    tail = opened.read(end)
    if len(tail) < end or not tail.endswith(_ARROW_END):
        opened.seek(0)
        return None
    size = int.from_bytes(tail[:4], "little")
    opened.seek(max(0, num_bytes - end - size))
    return pa.BufferReader(opened.read(size))


def _leaf_names(config: _Config, location: str) -> list[str]:
    """The name of each leaf, such as ``input_ids`` or ``a.ids``; empty if it is the whole item."""
    try:
        names = list(_names_below(json.loads(config.data_spec or "")[1], ""))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise InputError(f"{location}: index.json has no valid data_spec ({error}).") from error
    if len(names) != len(config.data_format):
        raise InputError(
            f"{location}: index.json names {len(names):,} leaves, expected "
            f"{len(config.data_format):,}, the number of their formats. Copy it again."
        )
    return names


def _names_below(node: dict[str, Any], path: str) -> Iterator[str]:
    if node["type"] is None:
        yield path
        return
    children = node["children_spec"]
    keys = json.loads(node["context"])
    keys = keys if isinstance(keys, list) else range(len(children))
    for key, child in zip(keys, children, strict=True):
        yield from _names_below(child, f"{path}.{key}" if path else str(key))
