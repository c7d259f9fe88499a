"""``blendtitan convert`` for rows of ids: Parquet and Arrow files, MDS and litdata.

Each file becomes one shard, with ``PREFIX.docs.parquet``, whose metadata name the file, its version
and the settings, so that a repeated call keeps finished shards.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blendtitan.config import check_at_least
from blendtitan.document_sources import SourceWriter, open_sources
from blendtitan.errors import BlendTitanError, InputError, ShardError
from blendtitan.prepare.convert import check_free
from blendtitan.prepare.row_documents import Change, DocumentMaker
from blendtitan.prepare.token_rows import RowFile, RowSettings
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_writer import record_ends
from blendtitan.storage.writer import (
    ShardWriter,
    remove_partials,
    remove_shard,
    token_dtype,
)
from blendtitan.visible import counted

_METADATA = b"blendtitan.converted"
_MOST_IDS = 1 << 31
_NO_IDS: Change = "no shard was made from {} without ids", "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFile:
    """The outcome for one file. With an error, or without ids, it has no shard."""

    source: Path
    prefix: Path
    description: str
    num_documents: int = 0
    num_tokens: int = 0
    counts: Counter[Change] | None = None
    """What is different in the shard, and how often."""

    was_there: bool = False
    """Whether an earlier call wrote it."""

    error: str | None = None


def convert_rows(
    files: Sequence[RowFile],
    output: Path,
    settings: RowSettings,
    *,
    overwrite: bool = False,
    threads: int | None = None,
) -> Iterator[ConvertedFile]:
    """Write a shard for each file of rows; yields the outcomes in order.

    Existing shards are checked before the first one is written. All shards have the same token
    type. A file whose rows cannot be used does not stop the others. ``threads`` files are read at
    once; None: one per core.

    Raises:
        ConfigError: An existing shard or an input would be replaced.
        InputError: The ids of a file are needed to choose a type, and it cannot be read.
    """
    if threads is not None:
        check_at_least("threads", threads, 1)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        num_ids = settings.vocab_size or _num_ids(files, pool, settings)
        planned = [
            _Planned.of(file, output, settings, num_ids, overwrite=overwrite) for file in files
        ]
        yield from pool.map(_Planned.outcome, planned)


def check_converted(files: Sequence[ConvertedFile]) -> None:
    """Check that every file was converted; raises ShardError with all reasons."""
    errors = [file.error for file in files if file.error is not None]
    if errors:
        raise ShardError(
            *errors, f"{len(errors):,} of {counted(len(files), 'file')} could not be converted"
        )


def conversion_notes(files: Iterable[ConvertedFile]) -> Iterator[str]:
    """Sentences about everything that shards hold differently from the rows."""
    counts = sum((file.counts for file in files if file.counts), Counter[Change]())
    for (sentence, what), count in counts.items():
        yield sentence.format(counted(count, what))


class _NoIdsError(InputError):
    """A file holds no ids."""


class _Planned(NamedTuple):
    file: RowFile
    prefix: Path
    settings: RowSettings
    num_ids: int
    finished: ConvertedFile | None = None

    @classmethod
    def of(
        cls, file: RowFile, output: Path, settings: RowSettings, num_ids: int, *, overwrite: bool
    ) -> "_Planned":
        """Raises ConfigError if a file would be replaced that is not ours."""
        prefix = output / file.name
        planned = cls(file, prefix, settings, num_ids)
        is_same = not overwrite and _is_made_of(prefix, planned.identity)
        check_free(
            prefix,
            [Path(file.file.location)],
            overwrite=overwrite or is_same,
            difference=f", and was not made from {file.file.location} as it is now with these "
            f"settings",
        )
        return planned._replace(finished=planned._found() if is_same else None)

    @property
    def dtype(self) -> np.dtype[Any]:
        return token_dtype(self.num_ids)

    @property
    def identity(self) -> bytes:
        """The file and the settings that the shard depends on."""
        settings = self.settings
        found = self.file.file.identity | {
            "column": settings.column,
            "eod_id": settings.eod_id,
            "packed": settings.is_packed,
            "dtype": settings.dtype,
            "keep": list(settings.keep),
            "vocab_size": settings.vocab_size,
            "token_type": self.dtype.name,
        }
        return json.dumps(found).encode()

    def _found(self) -> ConvertedFile | None:
        """The outcome of the earlier call. None: it did not finish."""
        try:
            index = ShardIndex.open(self.prefix)
        except ShardError:
            return None
        return self._converted(index, was_there=True)

    def _unwritten(self, **more: Any) -> ConvertedFile:
        source, description = Path(self.file.file.location), self.file.description
        return ConvertedFile(source=source, prefix=self.prefix, description=description, **more)

    def _converted(self, index: ShardIndex, **more: Any) -> ConvertedFile:
        counts = {"num_documents": index.num_documents, "num_tokens": index.num_tokens}
        return self._unwritten(**counts, **more)

    def outcome(self) -> ConvertedFile:
        """Write the shard, unless it is finished. Without ids, there is none."""
        try:
            return self.finished or self._write()
        except _NoIdsError:
            remove_shard(self.prefix)
            return self._unwritten(counts=Counter({_NO_IDS: 1}))
        except BlendTitanError as error:
            return self._unwritten(error=str(error))

    def _write(self) -> ConvertedFile:
        settings = replace(self.settings, vocab_size=self.num_ids)
        maker = DocumentMaker(settings, self.dtype, self.file.file.location)
        remove_partials(self.prefix)
        with (
            ShardWriter.create(self.prefix, dtype=self.dtype) as writer,
            SourceWriter(
                writer.open_docs(), self.settings.keep, metadata={_METADATA: self.identity}
            ) as sources,
        ):
            for documents in maker.documents(self.file.read()):
                writer.add_documents(documents.tokens, documents.lens)
                sources.write(documents.sources)
            self.file.file.check_unchanged()
            if not writer.num_tokens:
                raise _NoIdsError
            expected = writer.num_documents, writer.num_tokens
        # As a reader opens it.
        index = ShardIndex.open(self.prefix)
        if (index.num_documents, index.num_tokens) != expected:
            raise ShardError(
                f"{self.prefix}: found {counted(index.num_documents, 'document')} of "
                f"{counted(index.num_tokens, 'token')} after writing, expected "
                f"{expected[0]:,} of {expected[1]:,}. Check the disk, and convert again."
            )
        if self.settings.eod_id is not None:
            record_ends(self.prefix, self.settings.eod_id)
        return self._converted(index, counts=maker.counts)


def _num_ids(files: Sequence[RowFile], pool: ThreadPoolExecutor, settings: RowSettings) -> int:
    """One more than the largest id of all files, by their statistics or by reading them."""

    def largest(file: RowFile) -> int:
        found = file.find_largest()
        if found is None:
            found = max((int(rows.tokens.max(initial=0)) for rows in file.read()), default=0)
        return found

    eod_id = -1 if settings.eod_id is None else settings.eod_id
    return min(_MOST_IDS, 1 + max(eod_id, 0, *pool.map(largest, files)))


def _is_made_of(prefix: Path, identity: bytes) -> bool:
    try:
        with open_sources(prefix) as sources:
            return sources is not None and sources.metadata.get(_METADATA) == identity
    except ShardError:
        return False
