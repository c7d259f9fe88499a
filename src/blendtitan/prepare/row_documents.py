"""Documents of a shard, made from rows of ids: each row is one, or pieces of several."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendtitan.document_sources import integers, one_input, source_rows
from blendtitan.errors import InputError, VocabularyError
from blendtitan.prepare.token_rows import Rows, RowSettings

_LONGEST_PACKED = 1 << 28


class RowDocuments(NamedTuple):
    """Consecutive documents of a shard."""

    tokens: NDArray[np.integer]
    lens: NDArray[np.int32]
    sources: pa.Table


Change = tuple[str, str]
"""What is different in a shard: a sentence, and what is counted in it."""

_APPENDED: Change = "EOD was appended to {} that did not end in it", "document"
_EMPTY: Change = "kept as documents without text: {} without ids", "row"
_PADDING: Change = "left out as padding, because attention_mask is 0: {}", "id"
_NO_END: Change = (
    "{} in which --eod-id does not occur became one document each: check that the id is right",
    "file",
)
_NOT_KEPT = "the field {} of --keep is in no row of {{}}"
_CUT: Change = "EOD was appended to {} cut off at the end of a file", "document"


class DocumentMaker:
    """Makes the documents of one file from its rows."""

    def __init__(self, settings: RowSettings, dtype: np.dtype[Any], location: str) -> None:
        self._settings = settings
        self._dtype = dtype
        self._location = location
        self._row = 0
        self._kept: set[str] = set()
        self.counts: Counter[Change] = Counter()

    def documents(self, batches: Iterator[Rows]) -> Iterator[RowDocuments]:
        """The documents of all rows.

        Raises:
            InputError: Packed rows hold no end of a document.
            VocabularyError: An id is outside the vocabulary.
        """
        checked = map(self._checked, batches)
        whole = self._packed(checked) if self._settings.is_packed else map(self._whole, checked)
        yield from whole
        for name in self._settings.keep:
            if self._row and name not in self._kept:
                self.counts[_NOT_KEPT.format(name), "file"] += 1

    def _whole(self, rows: Rows) -> RowDocuments:
        """Each row as a document."""
        tokens, lens, eod_id = rows.tokens, rows.lens, self._settings.eod_id
        is_empty = lens == 0
        if is_empty.any():
            self.counts[_EMPTY] += int(np.count_nonzero(is_empty))
        if eod_id is not None:
            ends = np.cumsum(lens)
            lacks = is_empty.copy()
            lacks[~is_empty] = tokens[ends[~is_empty] - 1] != eod_id
            if lacks.any():
                tokens, lens = np.insert(tokens, ends[lacks], eod_id), lens + lacks
                self.counts[_APPENDED] += int(np.count_nonzero(lacks))
        numbers = np.arange(self._row, self._row + len(lens))
        self._row += len(lens)
        return RowDocuments(tokens, lens.astype(np.int32), self._sources(numbers, rows.kept))

    def _packed(self, batches: Iterator[Rows]) -> Iterator[RowDocuments]:
        """Documents that rows hold end to end. Each has the row in which it begins as source."""
        eod_id = self._settings.eod_id
        assert eod_id is not None, "checked before"
        rest, first, has_end = Rows(np.empty(0, self._dtype), np.empty(0, np.int64)), 0, False
        for rows in batches:
            numbers = np.arange(self._row, self._row + len(rows.lens))
            self._row += len(numbers)
            if len(rest.tokens):
                rows, numbers = _joined(rest, rows), np.append(first, numbers)
            cuts = np.flatnonzero(rows.tokens == eod_id) + 1
            starts = np.append(0, cuts)
            owners = np.searchsorted(np.cumsum(rows.lens), starts, "right")
            if len(cuts):
                has_end = True
                kept = tuple(column.take(integers(owners[:-1])) for column in rows.kept)
                lens = np.diff(starts).astype(np.int32)
                sources = self._sources(numbers[owners[:-1]], kept)
                yield RowDocuments(rows.tokens[: cuts[-1]], lens, sources)
            left = rows.tokens[starts[-1] :]
            if len(left) > _LONGEST_PACKED:
                raise InputError(
                    f"{self._location}: {len(left):,} ids in a row hold no {eod_id}, the id that "
                    f"ends documents. Give the right --eod-id."
                )
            owner = int(owners[-1])
            kept = tuple(column.slice(owner, 1) for column in rows.kept)
            rest = Rows(left, np.array([len(left)]), kept)
            first = int(numbers[owner]) if len(left) else 0
        if len(rest.tokens):
            self.counts[_CUT if has_end else _NO_END] += 1
            tokens = np.append(rest.tokens, np.array([eod_id], self._dtype))
            lens = np.array([len(tokens)], np.int32)
            yield RowDocuments(tokens, lens, self._sources(np.array([first]), rest.kept))

    def _checked(self, rows: Rows) -> Rows:
        """The rows in the type of the shard; their ids are checked."""
        if rows.num_padding:
            self.counts[_PADDING] += rows.num_padding
        for name, column in zip(self._settings.keep, rows.kept, strict=False):
            if column.null_count < len(column):
                self._kept.add(name)
        if not len(rows.tokens):
            return rows
        limit = self._settings.vocab_size
        assert limit is not None, "found before"
        low, high = int(rows.tokens.min()), int(rows.tokens.max())
        if low < 0 or high >= limit:
            place = int(np.argmax((rows.tokens < 0) | (rows.tokens >= limit)))
            row = self._row + int(np.searchsorted(np.cumsum(rows.lens), place, "right"))
            raise VocabularyError(
                f"{self._location}, row {row}: holds the id {int(rows.tokens[place]):,}, expected "
                f"0 to {limit - 1:,}. Check --column and --vocab-size. Labels and padding may hold "
                f"negative ids; they are not text."
            )
        return rows._replace(tokens=rows.tokens.astype(self._dtype))

    def _sources(self, numbers: NDArray[np.int64], kept: Sequence[pa.Array]) -> pa.Table:
        return source_rows(
            one_input(self._location, len(numbers)),
            dict(zip(self._settings.keep, kept, strict=False)),
            places=integers(numbers),
        )


def _joined(rest: Rows, rows: Rows) -> Rows:
    kept = (pa.concat_arrays([old, new]) for old, new in zip(rest.kept, rows.kept, strict=True))
    return Rows(
        np.concatenate([rest.tokens, rows.tokens]),
        np.append(rest.lens, rows.lens),
        tuple(kept),
    )
