"""Documents and tokens of shards and corpora, from the ``.idx`` files alone."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blendtitan.errors import ShardError
from blendtitan.shards.document_lengths import DocumentLens, document_ends
from blendtitan.shards.tokens import TextSymbols, summarize_tokens, text_notes
from blendtitan.storage.list_forms import NamedShard, named_shards
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tables import Table, number_table
from blendtitan.visible import counted

# Most of the time is spent waiting for the disk or the network.
_THREADS = 8

# Counts of shards that wait to be added to those of their corpora take up to a megabyte each.
_SHARDS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """What a shard, a corpus, or all of them hold. Lengths are tokens per document."""

    num_shards: int
    num_documents: int
    num_tokens: int

    dtypes: tuple[str, ...]
    """Token types, sorted: of a shard, one."""

    min_len: int
    median_len: int
    p90_len: int
    max_len: int

    num_unknown: int | None = None
    """Documents that contain the token for unknown text. None: tokens were not read."""

    num_eod_only: int | None = None
    """Documents of no tokens but EOD and BOS. None: tokens were not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStats:
    """A shard and what it holds, or why it cannot be read."""

    prefix: Path
    corpus: str
    stats: Stats | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in the inputs. Corpora and the total leave out what cannot be read."""

    shards: tuple[ShardStats, ...]
    corpora: dict[str, Stats]
    total: Stats | None

    @property
    def errors(self) -> list[str]:
        """Why shards cannot be read, one message each."""
        return [shard.error for shard in self.shards if shard.error is not None]


@dataclass(frozen=True, slots=True)
class TokenIds:
    """What is looked for in the tokens of shards."""

    eod_id: int | None
    symbols: TextSymbols


class _Counts:
    """What is known of some shards so far."""

    def __init__(self) -> None:
        self.num_shards = self.num_tokens = 0
        self.dtypes: set[str] = set()
        self.lens = DocumentLens()
        self.num_unknown: int | None = None
        self.num_eod_only: int | None = None

    @classmethod
    def of_shard(cls, prefix: Path, ids: TokenIds | None = None) -> "_Counts":
        index = ShardIndex.open(prefix)
        counts = cls()
        counts.num_shards, counts.num_tokens = 1, index.num_tokens
        counts.dtypes = {index.dtype.name}
        counts.lens = DocumentLens.of_shard(index)
        if ids is not None:
            summary = summarize_tokens(
                OpenFile.open(f"{prefix}.bin"),
                index.dtype,
                document_ends(index),
                eod_id=ids.eod_id,
                vocab_size=None,
                symbols=ids.symbols,
            )
            counts.num_unknown = summary.num_unknown
            counts.num_eod_only = summary.num_eod_only
        return counts

    def update(self, other: "_Counts") -> None:
        self.num_shards += other.num_shards
        self.num_tokens += other.num_tokens
        self.dtypes |= other.dtypes
        self.lens.update(other.lens)
        if other.num_unknown is not None and other.num_eod_only is not None:
            self.num_unknown = (self.num_unknown or 0) + other.num_unknown
            self.num_eod_only = (self.num_eod_only or 0) + other.num_eod_only

    def stats(self) -> Stats:
        return Stats(
            num_shards=self.num_shards,
            num_documents=self.lens.num_documents,
            num_tokens=self.num_tokens,
            dtypes=tuple(sorted(self.dtypes)),
            min_len=self.lens.quantile(0),
            median_len=self.lens.quantile(0.5),
            p90_len=self.lens.quantile(0.9),
            max_len=self.lens.quantile(1),
            num_unknown=self.num_unknown,
            num_eod_only=self.num_eod_only,
        )


def describe(inputs: Sequence[Path], ids: TokenIds | None = None) -> Report:
    """Count documents and tokens of every shard, of each corpus, and of all.

    A shard that cannot be read is an entry of the report with its error; the others are counted.

    Args:
        inputs: Prefixes, folders of shards and file lists.
        ids: Also read all tokens, and count the documents that these tell about. None: the
            ``.idx`` files are enough.

    Raises:
        FileListError: An input cannot be used.
    """
    shards: list[ShardStats] = []
    corpora: dict[str, _Counts] = {}
    total = _Counts()
    with ThreadPoolExecutor(_THREADS) as pool:
        for shard, counts in _counted(named_shards(inputs), pool, ids):
            if isinstance(counts, ShardError):
                error = str(counts)
                shards.append(ShardStats(prefix=shard.prefix, corpus=shard.corpus, error=error))
                continue
            stats = counts.stats()
            shards.append(ShardStats(prefix=shard.prefix, corpus=shard.corpus, stats=stats))
            corpora.setdefault(shard.corpus, _Counts()).update(counts)
            total.update(counts)
    by_corpus = {corpus: counts.stats() for corpus, counts in corpora.items()}
    return Report(tuple(shards), by_corpus, total.stats() if by_corpus else None)


def check_readable(report: Report) -> None:
    """Check that every shard could be read.

    Raises:
        ShardError: Some could not. The message has all of them.
    """
    if report.errors:
        left_out = (
            f"{len(report.errors):,} of {counted(len(report.shards), 'shard')} cannot be read"
        )
        raise ShardError(*report.errors, left_out)


def report_table(report: Report) -> Table:
    """A row for each shard, then for each corpus, then for all."""
    table = number_table(
        *("", "shards", "documents", "tokens", "dtype"),
        *("min", "median", "p90", "max"),
    )
    for shard in report.shards:
        name = str(shard.prefix)
        table.add_row(name, *(_cells(shard.stats) if shard.stats else ["cannot be read"]))
    table.add_section()
    for corpus, stats in report.corpora.items():
        table.add_row(corpus, *_cells(stats))
    if report.total is not None:
        table.add_section()
        table.add_row("total", *_cells(report.total))
    return table


def report_notes(report: Report) -> Iterator[str]:
    """What a reader of the table should know of the texts."""
    if report.total is not None:
        yield from text_notes(
            report.total.num_documents,
            num_unknown=report.total.num_unknown,
            num_eod_only=report.total.num_eod_only,
        )


def report_json(report: Report) -> dict[str, Any]:
    """The report as values that JSON has."""
    return {
        "shards": [
            {"prefix": str(shard.prefix), "corpus": shard.corpus}
            | (_values(shard.stats) if shard.stats else {"error": shard.error})
            for shard in report.shards
        ],
        "corpora": {corpus: _values(stats) for corpus, stats in report.corpora.items()},
        "total": _values(report.total) if report.total else None,
    }


def _counted(
    shards: Sequence[NamedShard], pool: ThreadPoolExecutor, ids: TokenIds | None
) -> Iterator[tuple[NamedShard, _Counts | ShardError]]:
    for start in range(0, len(shards), _SHARDS_AT_ONCE):
        batch = shards[start : start + _SHARDS_AT_ONCE]
        counts = pool.map(partial(_counts_or_error, ids=ids), batch)
        yield from zip(batch, counts, strict=True)


def _counts_or_error(shard: NamedShard, ids: TokenIds | None) -> _Counts | ShardError:
    try:
        return _Counts.of_shard(shard.prefix, ids)
    except ShardError as error:
        return error


def _values(stats: Stats) -> dict[str, Any]:
    counted = {
        "documents_with_unknown": stats.num_unknown,
        "documents_of_eod_only": stats.num_eod_only,
    }
    return {
        "shards": stats.num_shards,
        "documents": stats.num_documents,
        "tokens": stats.num_tokens,
        "dtypes": list(stats.dtypes),
        "tokens_per_document": {
            "min": stats.min_len,
            "median": stats.median_len,
            "p90": stats.p90_len,
            "max": stats.max_len,
        },
    } | {name: count for name, count in counted.items() if count is not None}


def _cells(stats: Stats) -> Iterable[str]:
    lens = stats.min_len, stats.median_len, stats.p90_len, stats.max_len
    counts = stats.num_shards, stats.num_documents, stats.num_tokens
    return [*(f"{n:,}" for n in counts), ", ".join(stats.dtypes), *(f"{n:,}" for n in lens)]
