"""What stretches of shards hold: their documents, bytes, tokens and texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.stretches import (
    document_at_with_eod,
    document_of,
    read_stretch,
    shard_index,
)
from blendtitan.errors import ConfigError
from blendtitan.history.fingerprints import Fingerprints
from blendtitan.history.phases import occurrences
from blendtitan.runs.slots import Stretch
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.reader import OpenFiles

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentPart:
    """Tokens of one document that lie in a stretch."""

    document_id: int
    first: int
    """Offset of the first of them in the document."""

    count: int
    document_tokens: int
    """Tokens of the whole document, an inserted EOD included."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The shards of a split that have documents in it."""

    catalog: Catalog
    rows: Rows
    """One for each shard."""

    keys: list[tuple[str, str, int]]
    """Of each row's shard, as the ``key`` of a stretch."""

    row_of: dict[tuple[str, str, int], int]
    """Row by that."""

    @classmethod
    def build(cls, catalog: Catalog, split: str, *, eod_id: int | None, max_open: int) -> Self:
        """Those of a catalog; ``eod_id`` is inserted where documents lack it."""
        s = SPLITS.index(split)
        usable = np.flatnonzero(catalog.split_tokens(s) > 0).tolist()
        ids = Fingerprints.of_catalog(catalog).ids
        rows = Rows.build(
            catalog, OpenFiles(max_open), [[shard] for shard in usable], split=s, eod_id=eod_id
        )
        named = [(catalog.corpora[shard], ids[shard]) for shard in usable]
        keys = [(*name, twin) for name, twin in zip(named, occurrences(named), strict=True)]
        return cls(catalog, rows, keys, {key: row for row, key in enumerate(keys)})

    def holds(self, stretch: Stretch) -> bool:
        """Whether the shard of a stretch is there."""
        return stretch.key in self.row_of

    def prefix(self, stretch: Stretch) -> str:
        """Path of a stretch's shard, without suffix."""
        return self.catalog.prefixes[self._shard(stretch)]

    def tokens(self, stretches: Sequence[Stretch]) -> NDArray[np.integer]:
        """The tokens of some stretches, one after the other.

        Raises:
            ShardError: A shard is missing or damaged.
        """
        tokens = np.empty(sum(stretch.count for stretch in stretches), self.rows.dtype)
        filled = 0
        for stretch in stretches:
            out = tokens[filled : filled + stretch.count]
            read_stretch(self.rows, self._row_of(stretch), stretch.offset, out)
            filled += stretch.count
        return tokens

    def documents(self, stretch: Stretch) -> list[DocumentPart]:
        """The documents of a stretch, in order; those without tokens are left out.

        Raises:
            ShardError: The ``.idx`` is missing or damaged.
        """
        row = self._row_of(stretch)
        stop = stretch.offset + stretch.count
        _, first = document_of(self.rows, row, stretch.offset)
        _, last = document_of(self.rows, row, stop - 1)
        starts = self._starts(self._shard(stretch), first, last + 1)
        low = np.maximum(starts[:-1], stretch.offset)
        counts = np.minimum(starts[1:], stop) - low
        return [
            DocumentPart(
                document_id=first + i,
                first=int(low[i] - starts[i]),
                count=int(counts[i]),
                document_tokens=int(starts[i + 1] - starts[i]),
            )
            for i in np.flatnonzero(counts > 0).tolist()
        ]

    def document_lens(self, shard: int, first: int, last: int) -> IntArray:
        """Tokens of documents ``first`` to before ``last`` of a shard, inserted EODs included.

        Raises:
            ShardError: The ``.idx`` is missing or damaged.
        """
        return np.diff(self._starts(shard, first, last))

    def byte_range(self, stretch: Stretch) -> tuple[int, int]:
        """Where the tokens of a stretch lie in the ``.bin``: its first byte, and the one after it.

        Inserted EODs are not there and do not count.
        """
        shard, stop = self._shard(stretch), stretch.offset + stretch.count
        size = self.catalog.dtype(shard).itemsize
        split_start = int(self.catalog.token_cuts[shard, self.rows.split])
        if not self.catalog.lacks_eod[shard]:
            return (split_start + stretch.offset) * size, (split_start + stop) * size
        return self._on_disk(shard, stretch.offset) * size, self._on_disk(shard, stop) * size

    def document(self, shard: str, document_id: int) -> tuple[str, Stretch]:
        """The path of a shard, and where one of its documents lies.

        Args:
            shard: Path without suffix, or the end of it.
            document_id: Number in the shard.

        Raises:
            ConfigError: There is no such shard, or the document is not in the split.
        """
        number = self._shard_named(shard)
        prefix = self.catalog.prefixes[number]
        first, stop = self._documents(number)
        if not first <= document_id < stop:
            split = SPLITS[self.rows.split]
            raise ConfigError(
                f"{prefix}: document {document_id:,} is not in the {split} split, which has "
                f"{stop - first:,} documents from {first:,} on"
            )
        begin, end = self._starts(number, document_id, document_id + 1).tolist()
        corpus, shard_id, twin = self.keys[self._row(number)]
        return prefix, Stretch(corpus, Path(prefix).name, shard_id, twin, begin, end - begin)

    def _shard_named(self, name: str) -> int:
        """The number of the shard of which ``name`` is the path, or the end of it.

        Raises:
            ConfigError: There is none, or several.
        """
        parts = Path(name).parts
        own = [
            shard
            for shard, prefix in enumerate(self.catalog.prefixes)
            if Path(prefix).parts[-len(parts) :] == parts or Path(prefix) == Path(name).absolute()
        ]
        if len(own) != 1:
            found = [self.catalog.prefixes[shard] for shard in own] or "none"
            raise ConfigError(
                f"{name}: found {found} of the {len(self.catalog.prefixes):,} shards of the run, "
                f"expected one. Name the shard by its path, without .bin"
            )
        return own[0]

    def _shard(self, stretch: Stretch) -> int:
        return int(self.rows.piece_shards[self._row_of(stretch)])

    def _row_of(self, stretch: Stretch) -> int:
        return self.row_of[stretch.key]

    def _documents(self, shard: int) -> tuple[int, int]:
        split = self.rows.split
        first, stop = self.catalog.document_cuts[shard, split : split + 2].tolist()
        return first, stop

    def _starts(self, shard: int, first: int, last: int) -> IntArray:
        """Offsets in the split of documents ``first`` to ``last``, both included."""
        starts = shard_index(self.rows, shard).document_starts(first, last)
        starts = starts - int(self.catalog.token_cuts[shard, self.rows.split])
        if self.catalog.lacks_eod[shard]:
            starts = starts + np.arange(first, last + 1) - self._documents(shard)[0]
        return starts

    def _on_disk(self, shard: int, offset: int) -> int:
        """Tokens of the ``.bin`` before an offset of a split in which EODs are inserted."""
        first, stop = self._documents(shard)
        split_start = int(self.catalog.token_cuts[shard, self.rows.split])
        if offset == int(self.rows.num_tokens[self._row(shard)]):
            return split_start + offset - (stop - first)
        document_id = document_at_with_eod(shard_index(self.rows, shard), first, offset)
        return split_start + offset - (document_id - first)

    def _row(self, shard: int) -> int:
        return int(np.flatnonzero(self.rows.piece_shards == shard)[0])
