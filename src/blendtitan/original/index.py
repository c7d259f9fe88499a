"""The index of the original's order: one file per split, written once, then read row by row.

    offset  size  field
    0       8     magic, ``BTORDER1``
    8       8     bytes of the text, uint64
    16      16    digest of the text
    32      ...   JSON text: corpora, tokens of shards, rows and digest of each column
    ...     ...   the columns, end to end

Everything is little endian. The text holds the digests of the columns, so the digest of the text
covers the file: one process checks a file, and sends the others the sixteen bytes of that digest.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.files import open_regular
from blendtitan.storage.atomic_files import replaced_file
from blendtitan.storage.reader import OpenFile

IntArray = NDArray[np.int64]

BLOCK_SLOTS = 4096
"""Slots between two stored counts of the draws of every corpus."""

RECORD = np.dtype(
    [
        ("shard", "<i4"),  # number of the shard
        ("num_reads", "<i4"),  # sequences that the sample takes tokens from
        ("window", "<i8"),  # number of the sample in its shard, before they are shuffled
        ("first_read", "<i8"),  # row of ``reads`` that has the first of these sequences
        ("offset", "<i4"),  # start of the sample in that sequence, in tokens
    ]
)

COLUMNS: dict[str, np.dtype[Any]] = {
    "slots": np.dtype("<i8"),  # row of ``records`` of each slot
    "counts": np.dtype("<i8"),  # draws of each corpus before each block of slots
    "records": RECORD,  # samples, corpus after corpus, in the order of their draws
    "reads": np.dtype("<i4"),  # sequences in the order read, shard after shard
}

_MAGIC = b"BTORDER1"
_HEADER = struct.Struct("<8sQ16s")
_DIGEST_BYTES = 16
_HASH_BYTES = 1 << 22
# Also read rows between requested rows, if that saves a read.
_GAP_ROWS = 64


@dataclass(frozen=True, slots=True)
class IndexFile:
    """The path of an index and its digest: small enough to send to other processes."""

    path: str
    digest: str
    """Digest of its text, as hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class CorpusEntry:
    """The facts about one corpus in an index."""

    name: str
    num_samples: int
    """Rows that it has in ``records``."""


def write_index(
    path: Path,
    corpora: Sequence[CorpusEntry],
    shard_tokens: Sequence[int],
    columns: Mapping[str, NDArray[Any]],
) -> IndexFile:
    """Write an index; readers see the whole file or none."""
    assert columns.keys() == COLUMNS.keys()
    buffers = {
        name: np.ascontiguousarray(columns[name], dtype).view(np.uint8).data
        for name, dtype in COLUMNS.items()
    }
    with ThreadPoolExecutor(len(buffers)) as pool:
        digests = list(pool.map(_digest, buffers.values()))
    text = json.dumps(
        {
            "corpora": [[corpus.name, corpus.num_samples] for corpus in corpora],
            "shard_tokens": list(shard_tokens),
            "columns": {
                name: [len(columns[name]), digest]
                for name, digest in zip(buffers, digests, strict=True)
            },
        }
    ).encode()
    # The digests detect a file that a power cut left incomplete.
    with replaced_file(path, durable=False) as file:
        file.write(_HEADER.pack(_MAGIC, len(text), bytes.fromhex(_digest(text))) + text)
        for buffer in buffers.values():
            file.write(buffer)
    return IndexFile(str(path), _digest(text))


def checked_index(path: Path) -> IndexFile | None:
    """The index at ``path``, after checking all its bytes; None if it is damaged.

    Raises:
        FileNotFoundError: There is no such file.
    """
    file = OpenFile(str(path), *open_regular(str(path)))
    try:
        index = OrderIndex.of_file(file)
        with ThreadPoolExecutor(len(COLUMNS)) as pool:
            whole = all(pool.map(index.is_whole, COLUMNS))
    except (BlendTitanError, ValueError):
        return None
    return IndexFile(str(path), index.digest) if whole else None


@dataclass(frozen=True, slots=True)
class _Column:
    at: int
    """Byte offset in the file."""
    num_rows: int
    dtype: np.dtype[Any]
    digest: str


class OrderIndex:
    """An opened index. Rows are read on demand; threads may share it."""

    def __init__(
        self,
        file: OpenFile,
        digest: str,
        corpora: Sequence[CorpusEntry],
        shard_tokens: Sequence[int],
        columns: Mapping[str, _Column],
    ) -> None:
        self._file = file
        self._columns = columns
        self.digest = digest
        self.corpora = tuple(corpora)
        self.shard_tokens = np.array(shard_tokens, np.int64)
        """Tokens that each shard has in the split. Shape ``(num_shards,)``."""
        self.record_starts = np.cumsum([0, *(corpus.num_samples for corpus in corpora)])
        """First row of ``records`` of each corpus, then the number of rows."""

    @classmethod
    def open(cls, index_file: IndexFile) -> Self:
        """Open an index that another process, or this one, checked.

        Raises:
            ConfigError: The file is missing or was replaced.
        """
        try:
            file = OpenFile(index_file.path, *open_regular(index_file.path))
            index = cls.of_file(file)
        except (OSError, BlendTitanError, ValueError) as error:
            raise ConfigError(
                f"{index_file.path}: the index of the order cannot be read ({error}). The first "
                f"rank wrote or checked it: set data_cache_path to a folder that all nodes share."
            ) from error
        if index.digest != index_file.digest:
            raise ConfigError(
                f"{index_file.path}: found an index with the digest {index.digest}, expected "
                f"{index_file.digest}, which the first rank has. Set data_cache_path to a folder "
                f"that all nodes share."
            )
        return index

    @classmethod
    def of_file(cls, file: OpenFile) -> Self:
        """The index in an open file, whose text is read and whose size is checked.

        Raises:
            BlendTitanError: The file ends early.
            ValueError: It is not an index, or has another size.
        """
        magic, text_bytes, digest = _HEADER.unpack(file.read(_HEADER.size, at=0))
        if magic != _MAGIC or text_bytes > file.num_bytes:
            raise ValueError(f"it starts with {magic!r}, expected {_MAGIC!r} and a text")
        text = file.read(text_bytes, at=_HEADER.size)
        if _digest(text) != digest.hex():
            raise ValueError(f"its text has the digest {_digest(text)}, expected {digest.hex()}")
        parsed = json.loads(text)
        at = _HEADER.size + text_bytes
        columns: dict[str, _Column] = {}
        for name, dtype in COLUMNS.items():
            num_rows, column_digest = parsed["columns"][name]
            columns[name] = _Column(at, num_rows, dtype, column_digest)
            at += num_rows * dtype.itemsize
        if file.num_bytes != at:
            raise ValueError(f"found {file.num_bytes:,} bytes, expected {at:,}")
        corpora = [CorpusEntry(*corpus) for corpus in parsed["corpora"]]
        return cls(file, digest.hex(), corpora, parsed["shard_tokens"], columns)

    @property
    def num_slots(self) -> int:
        """Slots of the order: its horizon."""
        return self._columns["slots"].num_rows

    def is_whole(self, name: str) -> bool:
        """Read a whole column; return whether it has the digest in the text."""
        column = self._columns[name]
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        stop = column.at + column.num_rows * column.dtype.itemsize
        for at in range(column.at, stop, _HASH_BYTES):
            digest.update(self._file.read(min(_HASH_BYTES, stop - at), at=at))
        return digest.hexdigest() == column.digest

    def stretch(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of a column."""
        column = self._columns[name]
        assert 0 <= start <= stop <= column.num_rows
        row_bytes = column.dtype.itemsize
        data = self._file.read((stop - start) * row_bytes, at=column.at + start * row_bytes)
        return np.frombuffer(data, column.dtype)

    def rows(self, name: str, numbers: IntArray) -> NDArray[Any]:
        """Rows of a column by number, in as few reads as neighbours allow."""
        wanted = np.unique(numbers)
        if not len(wanted):
            return np.empty(0, COLUMNS[name])
        begins = np.flatnonzero(np.diff(wanted, prepend=wanted[0] - _GAP_ROWS - 1) > _GAP_ROWS)
        firsts, lasts = wanted[begins], wanted[np.append(begins[1:] - 1, len(wanted) - 1)]
        parts = [
            self.stretch(name, first, last + 1)
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
        ]
        part = np.searchsorted(firsts, numbers, side="right") - 1
        starts = np.cumsum(lasts + 1 - firsts) - (lasts + 1 - firsts)
        return np.concatenate(parts)[starts[part] + numbers - firsts[part]]

    def draws_before(self, slot: int) -> IntArray:
        """Number of slots of each corpus before a slot. Shape ``(num_corpora,)``."""
        block, num_corpora = slot // BLOCK_SLOTS, len(self.corpora)
        counts = self.stretch("counts", block * num_corpora, (block + 1) * num_corpora)
        rest = self.corpora_of(self.stretch("slots", block * BLOCK_SLOTS, slot))
        return counts + np.bincount(rest, minlength=num_corpora)

    def corpora_of(self, records: IntArray) -> IntArray:
        """Number of the corpus of each row of ``records``."""
        return np.searchsorted(self.record_starts, records, side="right") - 1


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
