"""Documents, tokens and document lengths of shards and corpora: ``blendtitan stats``."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from blendtitan.errors import ShardError
from blendtitan.shards.document_lengths import DocumentLengths, document_ends
from blendtitan.shards.tokens import TextSymbols, summarize_tokens, text_notes
from blendtitan.storage.list_forms import NamedShard, named_shards
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tables import Cell, Table, filled_table
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted

# Most of the time is spent waiting for the disk or the network.
_THREADS = 8

# The counts of a shard take up to a megabyte until they are added to those of its corpus.
_SHARDS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """What a shard, a corpus, or all of them hold. Lengths are tokens per document."""

    num_shards: int
    num_documents: int
    num_tokens: int
    dtypes: tuple[str, ...]
    """Token types, sorted."""

    min_len: int
    median_len: int
    p90_len: int
    max_len: int

    num_unknown: int | None
    """Documents that contain the token for unknown text. None: tokens were not read."""

    num_eod_only: int | None
    """Documents that consist of EOD and BOS. None: tokens were not read."""

    def cells(self) -> list[Cell]:
        """The row of a table."""
        counts = self.num_shards, self.num_documents, self.num_tokens
        lens = self.min_len, self.median_len, self.p90_len, self.max_len
        return [*counts, ", ".join(self.dtypes), *lens]

    def json(self) -> dict[str, Any]:
        """The same for programs."""
        of_tokens = {
            "documents_with_unknown": self.num_unknown,
            "documents_of_eod_only": self.num_eod_only,
        }
        return {
            "shards": self.num_shards,
            "documents": self.num_documents,
            "tokens": self.num_tokens,
            "dtypes": list(self.dtypes),
            "tokens_per_document": {
                "min": self.min_len,
                "median": self.median_len,
                "p90": self.p90_len,
                "max": self.max_len,
            },
        } | {name: count for name, count in of_tokens.items() if count is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStats:
    """A shard and what it holds, or why it cannot be read."""

    prefix: Path
    corpus: str
    stats: Stats | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class StatsReport:
    """What the inputs hold. Corpora and the total leave out shards that cannot be read."""

    shards: tuple[ShardStats, ...]
    corpora: dict[str, Stats]
    total: Stats | None

    def check_readable(self) -> None:
        """Check that every shard could be read; raises ShardError with all messages."""
        errors = [shard.error for shard in self.shards if shard.error is not None]
        if errors:
            shards = counted(len(self.shards), "shard")
            raise ShardError(*errors, f"{len(errors):,} of {shards} cannot be read")

    def table(self) -> Table:
        """A row for each shard, then for each corpus, then for all."""
        headings = "", "shards", "documents", "tokens", "dtype", "min", "median", "p90", "max"
        rows = (
            [str(shard.prefix), *(shard.stats.cells() if shard.stats else ["cannot be read"])]
            for shard in self.shards
        )
        table = filled_table(headings, rows)
        table.add_section()
        for corpus, stats in self.corpora.items():
            table.add_row(corpus, *stats.cells())
        if self.total is not None:
            table.add_section()
            table.add_row("total", *self.total.cells())
        return table

    def notes(self) -> Iterator[str]:
        """What the texts lack, if anything."""
        if self.total is not None:
            yield from text_notes(
                self.total.num_documents,
                num_unknown=self.total.num_unknown,
                num_eod_only=self.total.num_eod_only,
            )

    def json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "shards": [
                {"prefix": str(shard.prefix), "corpus": shard.corpus}
                | (shard.stats.json() if shard.stats else {"error": shard.error})
                for shard in self.shards
            ],
            "corpora": {corpus: stats.json() for corpus, stats in self.corpora.items()},
            "total": self.total.json() if self.total else None,
        }


class _Counts:
    """What is known so far of some shards."""

    def __init__(self) -> None:
        self.num_shards = self.num_tokens = 0
        self.dtypes: set[str] = set()
        self.lengths = DocumentLengths()
        self.num_unknown: int | None = None
        self.num_eod_only: int | None = None

    @classmethod
    def of_shard(cls, prefix: Path, tokenizer: Tokenizer | None) -> Self:
        index = ShardIndex.open(prefix)
        counts = cls()
        counts.num_shards, counts.num_tokens = 1, index.num_tokens
        counts.dtypes = {index.dtype.name}
        counts.lengths = DocumentLengths.of_shard(index)
        if tokenizer is not None:
            summary = summarize_tokens(
                OpenFile.open(f"{prefix}.bin"),
                index.dtype,
                document_ends(index),
                eod_id=None if tokenizer.eos_id == ABSENT else tokenizer.eos_id,
                vocab_size=None,
                symbols=TextSymbols.of_tokenizer(tokenizer),
            )
            counts.num_unknown = summary.num_unknown
            counts.num_eod_only = summary.num_eod_only
        return counts

    def update(self, other: "_Counts") -> None:
        self.num_shards += other.num_shards
        self.num_tokens += other.num_tokens
        self.dtypes |= other.dtypes
        self.lengths.update(other.lengths)
        if other.num_unknown is not None and other.num_eod_only is not None:
            self.num_unknown = (self.num_unknown or 0) + other.num_unknown
            self.num_eod_only = (self.num_eod_only or 0) + other.num_eod_only

    def stats(self) -> Stats:
        return Stats(
            num_shards=self.num_shards,
            num_documents=self.lengths.num_documents,
            num_tokens=self.num_tokens,
            dtypes=tuple(sorted(self.dtypes)),
            min_len=self.lengths.quantile(0),
            median_len=self.lengths.quantile(0.5),
            p90_len=self.lengths.quantile(0.9),
            max_len=self.lengths.quantile(1),
            num_unknown=self.num_unknown,
            num_eod_only=self.num_eod_only,
        )


def describe(inputs: Sequence[Path], tokenizer: Tokenizer | None = None) -> StatsReport:
    """Count documents and tokens of every shard, of each corpus, and of all.

    A shard that cannot be read is reported with its error; the others are counted.

    Args:
        inputs: Prefixes, folders of shards and file lists.
        tokenizer: Also reads all tokens and counts documents with unknown text or without text.
            None: only the ``.idx`` files are read.

    Raises:
        FileListError: An input cannot be used.
    """
    shards: list[ShardStats] = []
    corpora: dict[str, _Counts] = {}
    total = _Counts()
    for shard, found in _counted(named_shards(inputs), tokenizer):
        named = partial(ShardStats, prefix=shard.prefix, corpus=shard.corpus)
        if isinstance(found, ShardError):
            shards.append(named(error=str(found)))
            continue
        shards.append(named(stats=found.stats()))
        corpora.setdefault(shard.corpus, _Counts()).update(found)
        total.update(found)
    by_corpus = {corpus: counts.stats() for corpus, counts in corpora.items()}
    return StatsReport(tuple(shards), by_corpus, total.stats() if by_corpus else None)


def _counted(
    shards: Sequence[NamedShard], tokenizer: Tokenizer | None
) -> Iterator[tuple[NamedShard, _Counts | ShardError]]:
    def counts_or_error(shard: NamedShard) -> _Counts | ShardError:
        try:
            return _Counts.of_shard(shard.prefix, tokenizer)
        except ShardError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(shards), _SHARDS_AT_ONCE):
            batch = shards[start : start + _SHARDS_AT_ONCE]
            yield from zip(batch, pool.map(counts_or_error, batch), strict=True)
