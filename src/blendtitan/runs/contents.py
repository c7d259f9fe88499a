"""The contents of stretches of shards: their documents, bytes and tokens."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import SPLITS, BlendConfig
from blendtitan.dataset.removed import Removal
from blendtitan.dataset.rows import Rows
from blendtitan.dataset.stretches import (
    document_at_with_eod,
    document_of,
    read_stretch,
    shard_index,
)
from blendtitan.errors import ConfigError
from blendtitan.history.record import Fingerprints
from blendtitan.history.removals import removed_slots
from blendtitan.runs.slots import ShardKey, Stretch, shard_keys
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.reader import OpenFiles
from blendtitan.storage.writer import docs_path
from blendtitan.visible import some_of

if TYPE_CHECKING:
    from blendtitan.document_sources import Source

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentPart:
    """The tokens of one document in a stretch."""

    document_id: int
    first: int
    """Offset of the first of them in the document."""
    count: int
    document_tokens: int
    """Tokens of the whole document, an inserted EOD included."""
    removed_from: int | None = None
    """The first slot that is read without it. None: it is not removed."""

    def is_removed(self, slot: int) -> bool:
        """Whether a slot is read without it."""
        return self.removed_from is not None and self.removed_from <= slot

    def __str__(self) -> str:
        span = f"{self.first:,} to {self.first + self.count:,} of {self.document_tokens:,}"
        removed = "" if self.removed_from is None else f", removed from slot {self.removed_from:,}"
        return f"document {self.document_id:,}, tokens {span}{removed}"


@dataclass(frozen=True, slots=True)
class Contents:
    """The shards of a split that have documents in it."""

    catalog: Catalog
    rows: Rows
    """One row for each shard."""
    row_of: dict[ShardKey, int]
    removed: Mapping[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """The first slot that is read without each removed document, by shard and document."""

    @classmethod
    def build(cls, catalog: Catalog, split: str, *, eod_id: int | None, max_open: int) -> Self:
        """The shards of a catalog; ``eod_id`` is inserted after documents that lack it."""
        s = SPLITS.index(split)
        usable = np.flatnonzero(catalog.split_tokens(s) > 0).tolist()
        known = Fingerprints.of_catalog(catalog)
        columns = (catalog.corpora, known.names, known.ids)
        keys = shard_keys(*([column[shard] for shard in usable] for column in columns))
        files, rows = OpenFiles(max_open), [[shard] for shard in usable]
        built = Rows.build(catalog, files, rows, split=s, eod_id=eod_id)
        return cls(catalog, built, {key: row for row, key in enumerate(keys)})

    @classmethod
    def of_blend(
        cls,
        blend: BlendConfig,
        catalog: Catalog,
        split: str,
        recorded: tuple[Removal, ...] = (),
        slot: int = 0,
    ) -> Self:
        """The shards of a blend, in a run with these removals in its state that is at ``slot``."""
        eod_id, max_open = blend.eod_token_id, blend.max_open_shards
        contents = cls.build(catalog, split, eod_id=eod_id, max_open=max_open)
        return replace(contents, removed=removed_slots(catalog, recorded, slot))

    def holds(self, stretch: Stretch) -> bool:
        """Whether the catalog has the shard of a stretch."""
        return stretch.key in self.row_of

    def check_holds(self, stretch: Stretch, slot: int, *, or_else: str = "") -> None:
        """Check that the catalog has the shard of a stretch of a slot.

        Raises:
            ConfigError: It does not. ``or_else`` names other remedies than restoring the shard.
        """
        if self.holds(stretch):
            return
        key, why = stretch.key, "is no longer in the run's file list"
        if any((each.corpus, each.name) == (key.corpus, key.name) for each in self.row_of):
            why = "has other contents now"
        raise ConfigError(
            f"slot {slot:,} was read from the shard {key}, which {why}. Restore the shard{or_else}."
        )

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
            read_stretch(self.rows, self.row_of[stretch.key], stretch.offset, out)
            filled += stretch.count
        return tokens

    def documents(self, stretch: Stretch) -> list[DocumentPart]:
        """The documents of a stretch, in order; those without tokens are left out.

        Raises:
            ShardError: The ``.idx`` is missing or damaged.
        """
        row = self.row_of[stretch.key]
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
                removed_from=self.removed.get((self._shard(stretch), first + i)),
            )
            for i in np.flatnonzero(counts > 0).tolist()
        ]

    def sources(
        self, stretch: Stretch, documents: Sequence[DocumentPart], *, read: bool
    ) -> "list[Source | None]":
        """The sources of documents of a stretch; None where they are not recorded, or not read.

        Raises:
            CorruptShardError: The file of the sources is damaged, or belongs to another shard.
        """
        prefix = self.prefix(stretch)
        if not (read and docs_path(prefix).exists()):
            return [None] * len(documents)
        # Imported on demand: pyarrow takes a tenth of a second.
        from blendtitan.document_sources import open_sources

        index = shard_index(self.rows, self._shard(stretch))
        with open_sources(prefix) as sources:
            if sources is None:
                return [None] * len(documents)
            sources.check_documents(index.num_documents)
            return [*sources.of_documents([document.document_id for document in documents])]

    def document_lens(self, shard: int, first: int, last: int) -> IntArray:
        """Tokens of documents ``first`` to before ``last`` of a shard, inserted EODs included."""
        return np.diff(self._starts(shard, first, last))

    def shards_of_corpora(self) -> dict[str, list[int]]:
        """Numbers of the shards of each corpus, sorted by corpus."""
        shards: dict[str, list[int]] = {}
        for shard in self.rows.piece_shards.tolist():
            shards.setdefault(self.catalog.corpora[shard], []).append(shard)
        return dict(sorted(shards.items()))

    def documents_of_corpora(self) -> dict[str, list[int]]:
        """The number of documents in the split, for each shard of each corpus."""
        counts = np.diff(self.catalog.document_cuts)[:, self.rows.split].tolist()
        return {
            name: [counts[shard] for shard in shards]
            for name, shards in self.shards_of_corpora().items()
        }

    def document_range(self, shard: int) -> tuple[int, int]:
        """The first document that a shard has in the split, and the one after the last."""
        split = self.rows.split
        first, stop = self.catalog.document_cuts[shard, split : split + 2].tolist()
        return first, stop

    def byte_range(self, stretch: Stretch) -> tuple[int, int]:
        """The bytes of a stretch in the ``.bin``: the first, and the end.

        Inserted EODs are not in the file and do not count.
        """
        shard, stop = self._shard(stretch), stretch.offset + stretch.count
        size = self.catalog.dtype(shard).itemsize
        if self.catalog.lacks_eod[shard]:
            return self._on_disk(shard, stretch.offset) * size, self._on_disk(shard, stop) * size
        split_start = self._split_start(shard)
        return (split_start + stretch.offset) * size, (split_start + stop) * size

    def document(self, shard: int, document_id: int) -> Stretch:
        """The stretch of a document of a shard.

        Raises:
            ConfigError: The document is not in the split.
        """
        first, stop = self.document_range(shard)
        if not first <= document_id < stop:
            split = SPLITS[self.rows.split]
            raise ConfigError(
                f"{self.catalog.prefixes[shard]}: document {document_id:,} is not in the {split} "
                f"split, which has {stop - first:,} documents from {first:,} on"
            )
        begin, end = self._starts(shard, document_id, document_id + 1).tolist()
        key = list(self.row_of)[self._row(shard)]
        return Stretch(key, begin, end - begin)

    def shard_named(self, name: str) -> int:
        """The number of the only shard whose path is ``name``, or ends in it.

        Raises:
            ConfigError: There is none, or several.
        """
        own, prefixes = self.shards_named(name), self.catalog.prefixes
        if len(own) > 1:
            shown = some_of([prefixes[shard] for shard in own])
            raise ConfigError(
                f"{name}: {len(own):,} shards of the run have paths that end in this: {shown}. "
                f"Give more of the path"
            )
        if not own:
            num_parts = len(Path(name).parts)
            ends = ["/".join(Path(prefix).parts[-num_parts:]) for prefix in prefixes]
            nearest = difflib.get_close_matches(name, ends, n=1, cutoff=0)
            raise ConfigError(
                f"{name}: is not among the {len(prefixes):,} shards in the file list of the run; "
                f"the most similar is {nearest[0]}. Name a shard by its path, or by the end of "
                f"it, without .bin"
            )
        return own[0]

    def shards_named(self, name: str) -> list[int]:
        """The numbers of the shards whose path is ``name``, or ends in it."""
        path, whole = Path(name), Path(name).absolute()
        parts = path.parts
        return [
            shard
            for shard, prefix in enumerate(self.catalog.prefixes)
            # Parsing the paths of thousands of shards takes long, and a list names many documents.
            if prefix.endswith(path.name)
            and (Path(prefix).parts[-len(parts) :] == parts or Path(prefix) == whole)
        ]

    def _shard(self, stretch: Stretch) -> int:
        return int(self.rows.piece_shards[self.row_of[stretch.key]])

    def _row(self, shard: int) -> int:
        return int(np.flatnonzero(self.rows.piece_shards == shard)[0])

    def _split_start(self, shard: int) -> int:
        return int(self.catalog.token_cuts[shard, self.rows.split])

    def _starts(self, shard: int, first: int, last: int) -> IntArray:
        """Offsets in the split of documents ``first`` to ``last``, both included."""
        starts = shard_index(self.rows, shard).document_starts(first, last) - self._split_start(
            shard
        )
        if self.catalog.lacks_eod[shard]:
            starts = starts + np.arange(first, last + 1) - self.document_range(shard)[0]
        return starts

    def _on_disk(self, shard: int, offset: int) -> int:
        """Tokens of the ``.bin`` before an offset of a split in which EODs are inserted."""
        first, stop = self.document_range(shard)
        document_id = stop
        if offset < int(self.rows.num_tokens[self._row(shard)]):
            document_id = document_at_with_eod(shard_index(self.rows, shard), first, offset)
        return self._split_start(shard) + offset - (document_id - first)
