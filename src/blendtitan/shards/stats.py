"""Documents, tokens and document lengths of shards and corpora: ``blendtitan stats``."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from blendtitan.document_sources import recorded_fields
from blendtitan.errors import ShardError
from blendtitan.shards.document_lengths import DocumentLengths, document_lens
from blendtitan.shards.report import source_notes
from blendtitan.shards.tokens import TextSymbols, summarize_tokens, text_notes
from blendtitan.storage.list_forms import NamedShard, named_shards
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.tables import Cell, Table
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted

# Most of the time is spent waiting for the disk or the network.
_THREADS = 8

_QUANTILES = {"min": 0.0, "median": 0.5, "p90": 0.9, "max": 1.0}


@dataclass(slots=True)
class Stats:
    """The counts of a shard, of a corpus, or of all."""

    num_shards: int = 0
    num_tokens: int = 0
    dtypes: set[str] = field(default_factory=set)
    lengths: DocumentLengths = field(default_factory=DocumentLengths)

    num_unknown: int | None = None
    """Documents that contain the unknown token. None: tokens were not read."""

    num_eod_only: int | None = None
    """Documents that consist of EOD and BOS. None: tokens were not read."""

    kept_fields: list[tuple[str, ...] | None] = field(default_factory=list)
    """For each shard, the fields recorded with the sources of its documents.

    None: these are not recorded.
    """

    @classmethod
    def of_shard(cls, prefix: Path, tokenizer: Tokenizer | None) -> Self:
        """Read the ``.idx`` of a shard and, for a tokenizer, its tokens."""
        index = ShardIndex.open(prefix)
        lens = document_lens(index)
        stats = cls(1, index.num_tokens, {index.dtype.name})
        stats.lengths.add(lens)
        stats.kept_fields = [recorded_fields(prefix, index.num_documents)]
        if tokenizer is not None:
            summary = summarize_tokens(
                OpenFile.open(f"{prefix}.bin"),
                index.dtype,
                index.start + np.cumsum(lens),
                start=index.start,
                eod_id=None if tokenizer.eos_id == ABSENT else tokenizer.eos_id,
                vocab_size=None,
                symbols=TextSymbols.of_tokenizer(tokenizer),
            )
            stats.num_unknown, stats.num_eod_only = summary.num_unknown, summary.num_eod_only
        return stats

    def update(self, other: "Stats") -> None:
        """Add another shard."""
        self.num_shards += other.num_shards
        self.num_tokens += other.num_tokens
        self.dtypes |= other.dtypes
        self.lengths.update(other.lengths)
        self.kept_fields += other.kept_fields
        if other.num_unknown is not None and other.num_eod_only is not None:
            self.num_unknown = (self.num_unknown or 0) + other.num_unknown
            self.num_eod_only = (self.num_eod_only or 0) + other.num_eod_only

    def json(self) -> dict[str, Any]:
        """The counts as JSON."""
        lens = {name: self.lengths.quantile(part) for name, part in _QUANTILES.items()}
        of_tokens = {
            "documents_with_unknown": self.num_unknown,
            "documents_of_eod_only": self.num_eod_only,
        }
        return {
            "shards": self.num_shards,
            "documents": self.lengths.num_documents,
            "tokens": self.num_tokens,
            "dtypes": sorted(self.dtypes),
            "tokens_per_document": lens,
            "shards_with_sources": len(self.kept_fields) - self.kept_fields.count(None),
        } | {name: count for name, count in of_tokens.items() if count is not None}


@dataclass(slots=True)
class StatsReport:
    """The counts of the inputs. Corpora and the total leave out unreadable shards."""

    shards: list[tuple[NamedShard, dict[str, Any] | ShardError]] = field(default_factory=list)
    """Each shard with its counts as JSON, or with the error of reading it."""

    corpora: dict[str, Stats] = field(default_factory=dict)
    total: Stats | None = None
    """None if no shard could be read."""

    def add(self, shard: NamedShard, found: Stats | ShardError) -> None:
        """Add a shard. Of its lengths, only those of its corpus are kept."""
        if isinstance(found, Stats):
            self.corpora.setdefault(shard.corpus, Stats()).update(found)
            self.shards.append((shard, found.json()))
        else:
            self.shards.append((shard, found))

    def check_readable(self) -> None:
        """Check that every shard could be read; raises ShardError with all messages."""
        errors = [str(found) for _, found in self.shards if isinstance(found, ShardError)]
        if errors:
            shards = counted(len(self.shards), "shard")
            raise ShardError(*errors, f"{len(errors):,} of {shards} cannot be read")

    def table(self) -> Table:
        """A row for each shard, then for each corpus, then for all."""
        headings = "", "shards", "documents", "tokens", "dtype", *_QUANTILES
        rows = (
            [
                str(shard.prefix),
                *(["cannot be read"] if isinstance(found, ShardError) else _cells(found)),
            ]
            for shard, found in self.shards
        )
        table = Table(headings, rows)
        for corpus, stats in self.corpora.items():
            table.add_row(corpus, *_cells(stats.json()))
        if self.total is not None:
            table.add_row("total", *_cells(self.total.json()))
        return table

    def notes(self) -> Iterator[str]:
        """Sentences about unknown or missing text, and recorded sources, if any."""
        if self.total is not None:
            yield from text_notes(
                self.total.lengths.num_documents,
                num_unknown=self.total.num_unknown,
                num_eod_only=self.total.num_eod_only,
            )
            yield from source_notes(self.total.kept_fields)

    def json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "shards": [
                {"prefix": str(shard.prefix), "corpus": shard.corpus}
                | ({"error": str(found)} if isinstance(found, ShardError) else found)
                for shard, found in self.shards
            ],
            "corpora": {corpus: stats.json() for corpus, stats in self.corpora.items()},
            "total": self.total.json() if self.total else None,
        }


def describe(inputs: Sequence[Path], tokenizer: Tokenizer | None = None) -> StatsReport:
    """Count documents and tokens of every shard, of each corpus, and of all.

    A shard that cannot be read is reported with its error; the others are counted.

    Args:
        inputs: Prefixes, folders of shards and file lists.
        tokenizer: Also reads all tokens and counts documents with the unknown token, and documents
            of EOD only. None: only the ``.idx`` files are read.

    Raises:
        FileListError: An input cannot be used.
    """

    def stats_or_error(shard: NamedShard) -> Stats | ShardError:
        try:
            return Stats.of_shard(shard.prefix, tokenizer)
        except ShardError as error:
            return error

    report, shards = StatsReport(), named_shards(inputs)
    with ThreadPoolExecutor(_THREADS) as pool:
        for shard, found in zip(shards, pool.map(stats_or_error, shards), strict=True):
            report.add(shard, found)
    if report.corpora:
        report.total = total = Stats()
        for stats in report.corpora.values():
            total.update(stats)
    return report


def _cells(counts: Mapping[str, Any]) -> list[Cell]:
    """The row of a table for counts as JSON."""
    lens = counts["tokens_per_document"].values()
    numbers = counts["shards"], counts["documents"], counts["tokens"]
    return [*numbers, ", ".join(counts["dtypes"]), *lens]
