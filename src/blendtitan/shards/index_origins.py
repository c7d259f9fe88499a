"""The sources of the documents in token files of other programs, where they are known.

dolma writes ``FILE.csv.gz`` beside ``FILE.npy``, with a line ``start,end,id,src,loc`` for each
document: its first token and the one after its last, its id, the file of its text and its line
there, from 1 on. If ``FILE.docs.parquet`` is there, it is carried along.

Source: ``MemmapMetadata`` in ``data_types.py``, and ``tokenize_file`` in ``tokenizer.py`` of dolma.
"""

import csv
import zlib
from collections.abc import Iterator
from gzip import GzipFile
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ShardError
from blendtitan.files import open_file
from blendtitan.shards.index_sources import TokenFile
from blendtitan.storage.atomic_files import remove_file_partials, replaced_file
from blendtitan.storage.writer import docs_path

_ROWS = 1 << 16


class _UnusableError(Exception):
    """The sources cannot be used; the text says why."""


def record_sources(source: TokenFile, prefix: Path, lens: NDArray[np.int32]) -> tuple[str, ...]:
    """Write ``PREFIX.docs.parquet``, if the sources of the documents are known.

    Returns a sentence if they are there, but cannot be used; the shard then has none.
    """
    target = docs_path(prefix)
    remove_file_partials(target)
    try:
        if _listing(source).is_file():
            with replaced_file(target) as file:
                _write_listed(_listing(source), lens, file)
        elif _own_docs(source).exists():
            _carry(_own_prefix(source), target, len(lens))
    except _UnusableError as error:
        return (f"{error}. The sources of its documents are not recorded.",)
    except ShardError as error:
        return (str(error),)
    return ()


def has_sources(source: TokenFile) -> bool:
    """Whether the sources of a file's documents may be known."""
    return _listing(source).is_file() or _own_docs(source).exists()


def remove_sources(source: TokenFile, prefix: Path) -> None:
    """Delete what an earlier call wrote, but not a file that came with the tokens."""
    if docs_path(prefix) != _own_docs(source) or _listing(source).is_file():
        docs_path(prefix).unlink(missing_ok=True)


def _own_prefix(source: TokenFile) -> Path:
    return source.path.with_name(source.path.stem)


def _own_docs(source: TokenFile) -> Path:
    return docs_path(_own_prefix(source))


def _listing(source: TokenFile) -> Path:
    return Path(f"{_own_prefix(source)}.csv.gz")


def _carry(own: Path, target: Path, num_documents: int) -> None:
    # Imported on demand: pyarrow takes a tenth of a second.
    from blendtitan.document_sources import JoinedSources

    joined = JoinedSources.of_shards([(own, num_documents)])
    if joined is not None and target != docs_path(own):
        with replaced_file(target) as file:
            joined.write(file)


def _write_listed(path: Path, lens: NDArray[np.int32], file: BinaryIO) -> None:
    from blendtitan.document_sources import SourceWriter, listed_rows

    expected, num_rows = np.cumsum(lens, dtype=np.int64), 0
    try:
        with SourceWriter(file, ["id"]) as writer:
            for lines in _batches(path):
                _, ends, ids, inputs, places = zip(*lines, strict=True)
                found = [int(end) for end in ends]
                if found != expected[num_rows : num_rows + len(lines)].tolist():
                    raise _UnusableError(
                        f"{path}: does not list the documents that the separating id gives"
                    )
                rows = np.array([int(place) for place in places], np.int64) - 1
                writer.write(listed_rows(inputs, {"id": ids}, rows=rows))
                num_rows += len(lines)
    except (csv.Error, OSError, EOFError, zlib.error, ValueError) as error:
        raise _UnusableError(f"{path}: cannot be read ({error})") from error
    if num_rows != len(lens):
        raise _UnusableError(f"{path}: lists {num_rows:,} of {len(lens):,} documents")


def _batches(path: Path) -> Iterator[list[list[str]]]:
    with open_file(path) as stored, GzipFile(fileobj=stored) as content:
        lines = csv.reader(TextIOWrapper(content, encoding="utf-8", newline=""))
        while batch := list(islice(lines, _ROWS)):
            yield batch
