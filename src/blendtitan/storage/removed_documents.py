"""The list of removed documents: ``blendcorpus.removed_documents``.

Each line is ``SHARD DOCUMENT``: a shard, named by its path or by the end of it, and the number of a
document in it, from 0. ``#`` begins a comment; a path with spaces is quoted. The list only grows:
a run that resumes keeps the documents that were removed before, and removes those after them from
then on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError
from blendtitan.files import io_map, read_text, with_retries
from blendtitan.storage.catalog import Catalog
from blendtitan.storage.file_list import split_words
from blendtitan.storage.reader import ShardIndex
from blendtitan.visible import counted, visible_logger

IntArray = NDArray[np.int64]

logger = visible_logger(__name__)

_MOST_BYTES = 1 << 30
_SHOWN = 3
_READ_TOGETHER = 4096
"""The starts of two documents at most so far apart are read at once."""


@dataclass(frozen=True, slots=True)
class RemovedDocuments:
    """Documents of a catalog that are not to be read, in the order of the list. Shapes ``(n,)``.

    Each is there once, where the list names it first.
    """

    shards: IntArray
    """Number of each document's shard."""

    documents: IntArray
    """Number of each document in its shard."""

    starts: IntArray
    """Tokens of the shard before each document."""

    stops: IntArray
    """The same after it; without an inserted EOD."""

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def num_tokens(self) -> int:
        """Tokens of all of them, without inserted EODs."""
        return int((self.stops - self.starts).sum())

    def json(self) -> list[list[int]]:
        """The columns as JSON, for ``from_json``."""
        return [each.tolist() for each in (self.shards, self.documents, self.starts, self.stops)]

    @classmethod
    def from_json(cls, columns: list[list[int]]) -> Self:
        """The documents that ``json`` returned."""
        return cls(*(np.array(column, np.int64) for column in columns))


def with_removed(catalog: Catalog, config: Any) -> Catalog:
    """The catalog with the documents of the list of a ``BlendConfig``.

    Raises:
        ConfigError: The list cannot be used, or there is no EOD.
        ShardError: An ``.idx`` is missing or damaged.
    """
    if config.eod_token_id is None:
        raise ConfigError(
            "eod_token_id is missing, but removed_documents needs it: removed documents are read "
            "as EOD. Set eod_token_id to the token that ends a document."
        )
    path = Path(config.removed_documents)
    removed = read_removed_documents(path, catalog)
    logger.info(
        "%s: removes %s of %s (%s tokens), which are read as EOD, without a loss",
        *(path, counted(len(removed), "document")),
        *(counted(len(np.unique(removed.shards)), "shard"), f"{removed.num_tokens:,}"),
    )
    if len(removed) and not config.provide_attention_mask:
        logger.warning(
            "provide_attention_mask is false, so later tokens of a sample attend to the EODs that "
            "replace a removed document. They see its length, but not its text."
        )
    return replace(catalog, removed=removed)


def read_removed_documents(path: Path, catalog: Catalog) -> RemovedDocuments:
    """The documents that a list names, found in the shards of a catalog.

    Raises:
        ConfigError: The list is missing, or a line of it names no document.
        ShardError: An ``.idx`` is missing or damaged.
    """
    named = _ShardNames(catalog)
    found: dict[tuple[int, int], None] = {}
    for where, shard_name, number in _lines(path):
        shard = named.shard(shard_name, where)
        num_documents = int(catalog.document_cuts[shard, 3])
        if number >= num_documents:
            raise ConfigError(
                f"{where}: {catalog.prefixes[shard]} has no document {number:,}, expected 0 to "
                f"{num_documents - 1:,}: it has {counted(num_documents, 'document')}"
            )
        found[shard, number] = None
    shards, documents = np.array(list(found), np.int64).reshape(-1, 2).T
    starts, stops = np.empty_like(shards), np.empty_like(shards)
    own = [np.flatnonzero(shards == shard) for shard in np.unique(shards)]
    spans = io_map(lambda at: _spans(catalog.prefixes[int(shards[at[0]])], documents[at]), own)
    for at, (first, stop) in zip(own, spans, strict=True):
        starts[at], stops[at] = first, stop
    return RemovedDocuments(shards, documents, starts, stops)


def _spans(prefix: str, documents: IntArray) -> tuple[IntArray, IntArray]:
    """The tokens of a shard before documents and after each of them."""
    index = ShardIndex.open(prefix)
    order = np.argsort(documents)
    ordered = documents[order]
    spans = np.empty((2, len(documents)), np.int64)
    groups = np.flatnonzero(np.diff(ordered) > _READ_TOGETHER) + 1
    for at in np.split(np.arange(len(documents)), groups):
        first, last = int(ordered[at[0]]), int(ordered[at[-1]])
        starts = index.document_starts(first, last + 1)
        spans[:, order[at]] = starts[ordered[at] - first], starts[ordered[at] - first + 1]
    return spans[0], spans[1]


def _lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """The place, the shard and the document of each line."""
    try:
        text = with_retries(
            lambda: read_text(path, encoding="utf-8-sig", most_bytes=_MOST_BYTES), path=str(path)
        )
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file. Name a list of removed documents in "
            f"blendcorpus.removed_documents, or leave the key out."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        words = split_words(line, where=where)
        if not words:
            continue
        if len(words) != 2 or not (words[1].isascii() and words[1].isdecimal()):
            raise ConfigError(
                f"{where}: found {line.strip()!r}, expected SHARD DOCUMENT, such as web/0 17. "
                f"Quote a path that contains spaces. For a list of ids or URLs, blendtitan find "
                f"writes the list of their documents."
            )
        yield where, words[0], int(words[1])


class _ShardNames:
    """Finds shards by their paths, or by the ends of them."""

    def __init__(self, catalog: Catalog) -> None:
        self._prefixes = catalog.prefixes
        self._parts = [PurePath(prefix).parts for prefix in catalog.prefixes]
        self._by_end: dict[int, dict[tuple[str, ...], list[int]]] = {}
        self._known: dict[str, int] = {}

    def shard(self, name: str, where: str) -> int:
        """The number of the shard of this name; ``where`` begins an error."""
        if name not in self._known:
            self._known[name] = self._only(name, self._ending_in(PurePath(name).parts), where)
        return self._known[name]

    def _ending_in(self, parts: tuple[str, ...]) -> list[int]:
        if len(parts) not in self._by_end:
            ends: dict[tuple[str, ...], list[int]] = {}
            for shard, of_shard in enumerate(self._parts):
                ends.setdefault(of_shard[-len(parts) :], []).append(shard)
            self._by_end[len(parts)] = ends
        return self._by_end[len(parts)].get(parts, [])

    def _only(self, name: str, found: list[int], where: str) -> int:
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(self._prefixes[shard] for shard in found[:_SHOWN])
            raise ConfigError(
                f"{where}: {len(found):,} shards have paths that end in {name}, such as {shown}. "
                f"Give more of the path."
            )
        raise ConfigError(
            f"{where}: {name} is not among the {counted(len(self._prefixes), 'shard')} of the "
            f"file list, such as {self._prefixes[0]}. Name a shard by its path, or by the end of "
            f"it, without .bin."
        )
