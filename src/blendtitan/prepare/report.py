"""What the preparing commands show: a progress bar, where there is a terminal, and tables."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from blendtitan.prepare.mix import CorpusMix
from blendtitan.prepare.tokenize_file import TokenizedFile
from blendtitan.storage.file_list import corpus_in_folder


@contextmanager
def progress_bar(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar of bytes, bytes per second and time left; nothing where stderr is not a terminal.

    Yields a function to be called with the number of bytes read so far.
    """
    console = Console(stderr=True)
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    label = TextColumn("tokenising")
    with Progress(label, *columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("tokenising", total=total_bytes)
        yield lambda num_bytes: progress.update(task, completed=num_bytes)


def tokenize_table(files: Iterable[TokenizedFile], output: Path) -> Table:
    """Shards, documents, tokens and rejects of each corpus below ``output``, and their sums."""
    counts: dict[str, list[int]] = {}
    for file in files:
        corpus = counts.setdefault(corpus_in_folder(file.job.prefix, output), [0, 0, 0, 0])
        found = file.num_documents > 0, file.num_documents, file.num_tokens, file.rejects.count
        corpus[:] = [total + more for total, more in zip(corpus, found, strict=True)]
    table = _table("corpus", "shards", "documents", "tokens", "rejects")
    for corpus, numbers in sorted(counts.items()):
        table.add_row(corpus, *(f"{number:,}" for number in numbers))
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    table.add_section()
    table.add_row("total", *(f"{total:,}" for total in totals))
    return table


def mix_table(corpora: Iterable[CorpusMix]) -> Table:
    """Tokens, epochs and share of each corpus, and the tokens of one pass over the blend."""
    rows = list(corpora)
    pass_tokens = sum(row.weight for row in rows)
    table = _table("corpus", "shards", "tokens", "epochs", "tokens read", "share")
    for row in rows:
        table.add_row(
            *(row.corpus, f"{row.num_shards:,}", f"{row.num_tokens:,}", f"{row.epochs:g}"),
            *(f"{row.weight:,.0f}", f"{row.weight / pass_tokens:.2%}"),
        )
    table.add_section()
    num_shards, num_tokens = (
        sum(row.num_shards for row in rows),
        sum(row.num_tokens for row in rows),
    )
    table.add_row(
        "total", f"{num_shards:,}", f"{num_tokens:,}", "", f"{pass_tokens:,.0f}", "100.00%"
    )
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def show(table: Table) -> None:
    """Print a table to stdout."""
    Console().print(table)
