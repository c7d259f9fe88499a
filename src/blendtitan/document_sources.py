"""The source of every document of a shard: ``PREFIX.docs.parquet``.

Row ``n`` is about document ``n``: its input file or URL, the row or first byte of its text there
(after decompression), and the fields that ``--keep`` named, as text. Files are written and read in
row groups, so memory is bounded for any number of documents.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blendtitan.errors import CorruptShardError
from blendtitan.files import open_file, url_of
from blendtitan.storage.writer import DOCS_SUFFIX

Unit = Literal["row", "byte"]

_OWN = [
    ("input", pa.dictionary(pa.int32(), pa.string())),
    ("row", pa.int64()),
    ("byte", pa.int64()),
]

_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 1 << 26
"""Bytes of kept fields after which a row group ends."""


def schema_of(keep: Iterable[str]) -> pa.Schema:
    """The columns of a file."""
    return pa.schema([*_OWN, *((name, pa.string()) for name in keep)])


def integers(values: np.ndarray[Any, Any]) -> pa.Array:
    """Integers as Arrow has them. ``pa.array`` would import pandas where it is installed."""
    kind = pa.int32() if values.dtype == np.int32 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def one_input(location: str | None, count: int) -> pa.DictionaryArray:
    """The same input for ``count`` documents; None: it is unknown."""
    is_known = location is not None
    numbers = integers(np.zeros(count, np.int32)) if is_known else pa.nulls(count, pa.int32())
    name = (location or "").encode()
    offsets = np.array([0, len(name)], np.int32)
    names = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(name)])
    return pa.DictionaryArray.from_arrays(numbers, names)


def source_rows(
    inputs: pa.DictionaryArray,
    kept: Mapping[str, pa.Array],
    *,
    unit: Unit = "row",
    places: pa.Array | None = None,
) -> pa.Table:
    """Rows about consecutive documents; without ``places``, these are unknown."""
    columns = {
        "input": inputs,
        "row": pa.nulls(len(inputs), pa.int64()),
        "byte": pa.nulls(len(inputs), pa.int64()),
    }
    if places is not None:
        columns[unit] = places
    return pa.table(columns | dict(kept), schema=schema_of(kept))


def listed_rows(
    inputs: Sequence[str | None],
    kept: Mapping[str, Sequence[str | None]],
    *,
    rows: np.ndarray[Any, Any] | None = None,
) -> pa.Table:
    """Rows about consecutive documents, from lists of their inputs and kept fields."""
    columns = {name: pa.array(values, pa.string()) for name, values in kept.items()}
    named = pa.array(inputs, pa.string()).dictionary_encode()
    return source_rows(named, columns, places=None if rows is None else integers(rows))


class SourceWriter(AbstractContextManager["SourceWriter"]):
    """Writes rows to an open file, in the order of the documents.

    Equal rows give equal bytes, however they are divided among the calls.
    """

    def __init__(
        self,
        file: BinaryIO,
        keep: Sequence[str] = (),
        *,
        metadata: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._schema, self._keep = schema_of(keep).with_metadata(metadata), tuple(keep)
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            use_dictionary=["input", *keep],  # pyright: ignore[reportArgumentType]
            column_encoding={"row": "DELTA_BINARY_PACKED", "byte": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
        )
        self._held: list[pa.Table] = []
        self._num_rows = self._num_bytes = 0

    def write(self, rows: pa.Table) -> None:
        """Append rows. Columns that this file lacks are left out; those it has more are null."""
        rows = _with_columns(rows, self._schema)
        while len(rows):
            taken = rows.slice(0, self._room(rows))
            self._held.append(taken)
            self._num_rows += len(taken)
            self._num_bytes += int(_kept_bytes(taken, self._keep).sum())
            if self._num_rows >= _GROUP_ROWS or self._num_bytes >= _GROUP_BYTES:
                self._end_group()
            rows = rows.slice(len(taken))

    def _room(self, rows: pa.Table) -> int:
        """Rows up to the end of the group, which depends on nothing but the rows."""
        ends = np.cumsum(_kept_bytes(rows, self._keep))
        until_full = np.searchsorted(ends, _GROUP_BYTES - self._num_bytes) + 1
        return int(min(until_full, _GROUP_ROWS - self._num_rows))

    def _end_group(self) -> None:
        rows = pa.concat_tables(self._held).unify_dictionaries().combine_chunks()
        self._writer.write_table(rows, row_group_size=max(1, len(rows)))
        self._held, self._num_rows, self._num_bytes = [], 0, 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._held:
            self._end_group()
        self._writer.close()


def with_fields(rows: pa.Table, keep: Iterable[str]) -> pa.Table:
    """Rows with these kept fields; those that they lack are null."""
    return _with_columns(rows, schema_of(keep))


def _with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows.column(field.name)
        if field.name in rows.schema.names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _kept_bytes(rows: pa.Table, keep: Iterable[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Bytes of the kept fields of each row."""
    total = np.zeros(len(rows), np.int64)
    for name in keep:
        # Imported on demand: it takes as long as the rest of pyarrow.
        import pyarrow.compute as pc

        total += pc.fill_null(pc.binary_length(rows.column(name)), 0).to_numpy()  # pyright: ignore
    return total


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one document."""

    input: str | None
    """File or URL. None: unknown."""

    row: int | None
    byte: int | None
    kept: dict[str, str | None]
    """The fields of ``--keep``; None: the document has no such field."""

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Self:
        """The source in a row of the file."""
        return cls(**{name: row.pop(name) for name, _ in _OWN}, kept=row)

    def __str__(self) -> str:
        places = (("row", self.row), ("byte", self.byte))
        where = [self.input or "an unknown input"]
        where += [f"{unit} {place:,}" for unit, place in places if place is not None]
        shown = (
            f"{name} {_quoted(value)}" for name, value in self.kept.items() if value is not None
        )
        return "; ".join([", ".join(where), *shown])

    def json(self) -> dict[str, Any]:
        """The source as JSON, with the one of ``row`` and ``byte`` that is known."""
        places = {"row": self.row, "byte": self.byte}
        known = {unit: place for unit, place in places.items() if place is not None}
        return {"input": self.input, **known, **self.kept}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a shard's documents."""

    path: str
    file: pq.ParquetFile

    @property
    def keep(self) -> tuple[str, ...]:
        """Names of the kept fields."""
        return tuple(self.file.schema_arrow.names[len(_OWN) :])

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What the program that wrote it says about it."""
        return self.file.schema_arrow.metadata or {}

    @property
    def num_documents(self) -> int:
        """Documents that it describes."""
        return self.file.metadata.num_rows

    def check_documents(self, expected: int) -> None:
        """Check that it describes as many documents as the shard has; raises CorruptShardError."""
        if self.num_documents != expected:
            raise CorruptShardError(
                f"{self.path}: describes {self.num_documents:,} documents, but the shard beside it "
                f"has {expected:,}. It belongs to another shard. Copy it again with its shard, or "
                f"delete it; the sources of the documents are then unknown."
            )

    def empty_fields(self) -> set[str]:
        """Kept fields that no document has."""
        return set(self.keep) - {
            name
            for column, name in enumerate(self.keep, start=len(_OWN))
            for group in range(self.file.metadata.num_row_groups)
            if self.file.metadata.row_group(group).column(column).statistics.null_count
            < self.file.metadata.row_group(group).num_rows
        }

    def groups(self) -> Iterator[pa.Table]:
        """All rows, one row group after the other."""
        for group in range(self.file.num_row_groups):
            yield self._group(group)

    def of_documents(self, document_ids: Sequence[int]) -> list[Source]:
        """The sources of some documents."""
        metadata = self.file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, document_ids, "right").tolist()
        read: dict[int, pa.Table] = {}
        found: list[Source] = []
        for document_id, group in zip(document_ids, groups, strict=True):
            if group not in read:
                read = {group: self._group(group)}
            [row] = read[group].slice(document_id - int(ends[group]) + sizes[group], 1).to_pylist()
            found.append(Source.of_row(row))
        return found

    def _group(self, group: int) -> pa.Table:
        with _readable(self.path):
            return self.file.read_row_group(group)

    def holds(self, rows: Iterable[pa.Table]) -> bool:
        """Whether it has exactly these rows, in tables of any size."""
        groups, held = self.groups(), None
        for table in rows:
            table = _with_columns(table, self.file.schema_arrow)
            while len(table):
                held = held if held is not None and len(held) else next(groups, None)
                if held is None:
                    return False
                count = min(len(held), len(table))
                if not _is_equal(held.slice(0, count), table.slice(0, count)):
                    return False
                held, table = held.slice(count), table.slice(count)
        return not held and next(groups, None) is None


def _is_equal(rows: pa.Table, other: pa.Table) -> bool:
    # Tables with other dictionaries may hold the same names.
    plain = schema_of(()).set(0, pa.field("input", pa.string()))
    plain = pa.schema([*plain, *list(rows.schema)[len(_OWN) :]])
    return rows.cast(plain).equals(other.cast(plain))


@contextmanager
def open_sources(prefix: Path | str) -> Generator[Sources | None]:
    """Open the file beside a shard; yields None if there is none.

    Raises:
        CorruptShardError: The file cannot be read, or holds something else.
    """
    path = f"{prefix}{DOCS_SUFFIX}"
    with _readable(path):
        try:
            opened = _open(path)
        except FileNotFoundError:
            opened = None
    if opened is None:
        yield None
        return
    with opened:
        yield _sources_in(opened, path)


def _open(path: str) -> BinaryIO:
    if not url_of(path):
        return open_file(path)
    from blendtitan.storage.remote_reader import open_remote

    return open_remote(path)


def _sources_in(opened: BinaryIO, path: str) -> Sources:
    with _readable(path):
        file = pq.ParquetFile(opened, page_checksum_verification=True)
        names = file.schema_arrow.names
        if not file.schema_arrow.equals(schema_of(names[len(_OWN) :])):
            raise pa.ArrowInvalid(f"its columns are {', '.join(names)}")
        return Sources(path, file)


def recorded_fields(
    prefix: Path | str, documents: int, *, whole: bool = False
) -> tuple[str, ...] | None:
    """The kept fields of a shard's documents; None: their sources are not recorded.

    With ``whole``, every row is read.

    Raises:
        CorruptShardError: The file is damaged, or does not describe this number of documents.
    """
    with open_sources(prefix) as sources:
        if sources is None:
            return None
        sources.check_documents(documents)
        for _ in sources.groups() if whole else ():
            pass
        return sources.keep


@dataclass(frozen=True, slots=True)
class JoinedSources:
    """The sources of the documents of several shards, joined to one."""

    keep: tuple[str, ...]
    """The kept fields of all of them."""

    shards: Sequence[tuple[Path, int]]
    """Prefix and number of documents of each."""

    @classmethod
    def of_shards(cls, shards: Sequence[tuple[Path, int]]) -> Self | None:
        """None: no shard records the sources of its documents.

        Raises:
            CorruptShardError: A file cannot be read, or describes another number of documents.
        """
        found = [recorded_fields(prefix, documents) for prefix, documents in shards]
        recorded = [keep for keep in found if keep is not None]
        keep = dict.fromkeys(name for keep in recorded for name in keep)
        return cls(tuple(keep), shards) if recorded else None

    def rows(self) -> Iterator[pa.Table]:
        """The rows of all shards; their inputs are unknown where a shard does not record them."""
        for prefix, documents in self.shards:
            with open_sources(prefix) as sources:
                if sources is not None:
                    yield from sources.groups()
                    continue
            for first in range(0, documents, _GROUP_ROWS):
                yield source_rows(one_input(None, min(_GROUP_ROWS, documents - first)), {})

    def write(self, file: BinaryIO) -> None:
        """Write them to an open file."""
        with SourceWriter(file, self.keep) as writer:
            for rows in self.rows():
                writer.write(rows)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Convert errors of reading inside the block."""
    try:
        yield
    # Damaged metadata may raise the last two.
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise CorruptShardError(
            f"{path}: cannot be read as the sources of a shard's documents ({error}). Copy it "
            f"again with its shard, or delete it; the sources of the documents are then unknown."
        ) from error
