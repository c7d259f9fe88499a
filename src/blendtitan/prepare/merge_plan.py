"""Which shards ``blendtitan merge`` joins, and into what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blendtitan.errors import ConfigError, TokenizerMismatchError
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.index_format import IndexHeader
from blendtitan.storage.list_forms import named_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.record_files import TokenizerRecord, read_record
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class SourceShard:
    """What merging needs to know of an input shard."""

    prefix: Path
    corpus: str
    dtype: np.dtype[Any]
    num_sequences: int
    num_documents: int
    num_tokens: int

    tokenizer: TokenizerIdentity | None = None
    """By its record. None: it has none, or one that describes another shard."""

    @property
    def num_bytes(self) -> int:
        """Size of its ``.bin``."""
        return self.num_tokens * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class MergedShard:
    """An output shard and the input shards it is made of, in order."""

    prefix: Path
    corpus: str
    sources: tuple[SourceShard, ...]

    @property
    def header(self) -> IndexHeader:
        """The fixed fields of its ``.idx``."""
        return IndexHeader(
            self.sources[0].dtype,
            sum(source.num_sequences for source in self.sources),
            sum(source.num_documents for source in self.sources),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of all its sources."""
        return sum(source.num_tokens for source in self.sources)

    @property
    def num_bytes(self) -> int:
        """Size of its ``.bin``."""
        return sum(source.num_bytes for source in self.sources)

    @property
    def record(self) -> TokenizerRecord | None:
        """Its tokenizer, where every source has a record: no more is claimed than is known."""
        tokenizers = [source.tokenizer for source in self.sources]
        if tokenizers[0] is None or None in tokenizers:
            return None
        return TokenizerRecord(tokenizers[0], self.header.num_documents, self.num_tokens)


def read_sources(inputs: Sequence[Path]) -> list[SourceShard]:
    """Open every input shard once; none stays open.

    Raises:
        FileListError: An input cannot be used.
        ShardError: A shard cannot be opened.
    """
    return [_source(prefix, corpus) for prefix, corpus in named_shards(inputs)]


def plan_merge(
    sources: Sequence[SourceShard], output: Path, *, target_tokens: float
) -> list[MergedShard]:
    """Which shards are joined: neighbours of one corpus, as many as the target holds.

    Raises:
        ConfigError: The shards of a corpus differ in dtype, or its name cannot name a folder.
    """
    by_corpus: dict[str, list[SourceShard]] = {}
    for source in sources:
        by_corpus.setdefault(source.corpus, []).append(source)
    merged: list[MergedShard] = []
    for corpus, members in by_corpus.items():
        _check_corpus(corpus, members)
        for number, group in enumerate(_groups(members, target_tokens)):
            merged.append(MergedShard(output / corpus / f"{number:05d}", corpus, tuple(group)))
    return merged


def check_tokenizers(sources: Sequence[SourceShard]) -> None:
    """Check that no two inputs are known to be of different tokenizers.

    Raises:
        TokenizerMismatchError: Two are.
    """
    recorded = [source for source in sources if source.tokenizer is not None]
    for source in recorded:
        if source.tokenizer is not None and not source.tokenizer.is_same(recorded[0].tokenizer):
            raise TokenizerMismatchError(
                f"{recorded[0].prefix} was made with {recorded[0].tokenizer}, {source.prefix} with "
                f"{source.tokenizer}. Merge the shards of each tokenizer into a folder of its own."
            )
    num_unknown = len(sources) - len(recorded)
    if recorded and num_unknown:
        logger.warning(
            "%d of %d shards have no record of their tokenizer. A merged shard that contains one "
            "has no record either; a run compares a sample of its tokens instead.",
            *(num_unknown, len(sources)),
        )


def _source(prefix: Path, corpus: str) -> SourceShard:
    index = ShardIndex.open(prefix)
    record = read_record(prefix)
    if record and not record.describes(documents=index.num_documents, tokens=index.num_tokens):
        record = None
    return SourceShard(
        prefix,
        corpus,
        index.dtype,
        index.header.num_sequences,
        index.num_documents,
        index.num_tokens,
        record and record.tokenizer,
    )


def _groups(sources: Sequence[SourceShard], target_tokens: float) -> Iterator[list[SourceShard]]:
    group: list[SourceShard] = []
    num_tokens = 0
    for source in sources:
        if group and num_tokens + source.num_tokens > target_tokens:
            yield group
            group, num_tokens = [], 0
        group.append(source)
        num_tokens += source.num_tokens
    yield group


def _check_corpus(corpus: str, sources: Sequence[SourceShard]) -> None:
    if corpus in (".", "..") or "/" in corpus:
        raise ConfigError(
            f"corpus {corpus!r}: its shards go to a folder of this name, which cannot be one. "
            f"Give it another name in the file list."
        )
    first = sources[0]
    for source in sources:
        if source.dtype != first.dtype:
            raise ConfigError(
                f"corpus {corpus!r}: {source.prefix} holds tokens of type {source.dtype.name}, "
                f"{first.prefix} of type {first.dtype.name}, expected one type. Merge them into "
                f"different folders, or tokenise one of them again."
            )
