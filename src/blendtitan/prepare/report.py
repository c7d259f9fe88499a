"""What the preparing commands show: a progress bar, where there is a terminal, and tables."""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
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

from blendtitan.prepare.parts import Counts
from blendtitan.prepare.plan import Shard
from blendtitan.storage.file_list import corpus_in_folder
from blendtitan.tables import number_table


@contextmanager
def progress_bar(total_bytes: int) -> Generator[Callable[[int, int, int], None]]:
    """A bar of what was read and made; nothing where stderr is not a terminal.

    Yields a function to be called with the bytes read, documents and tokens made so far.
    """
    console = Console(stderr=True)
    columns = (
        *(TextColumn("tokenising"), BarColumn(), DownloadColumn(), TransferSpeedColumn()),
        TextColumn("{task.fields[documents]:,} documents, {task.fields[tokens]:,} tokens,"),
        *(TimeRemainingColumn(), TextColumn("left")),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total_bytes, documents=0, tokens=0)

        def show(num_bytes: int, documents: int, tokens: int) -> None:
            progress.update(task, completed=num_bytes, documents=documents, tokens=tokens)

        yield show


def tokenize_table(counts: Mapping[Shard, Counts], output: Path) -> Table:
    """Shards, documents, tokens and rejects of each corpus below ``output``, and their sums."""
    num_shards: Counter[str] = Counter()
    sums: defaultdict[str, Counts] = defaultdict(Counts)
    for shard, found in counts.items():
        corpus = corpus_in_folder(shard.prefix, output)
        num_shards[corpus] += found.documents > 0
        sums[corpus] += found
    table = number_table("corpus", "shards", "documents", "tokens", "rejects")
    for corpus, found in sorted(sums.items()):
        table.add_row(corpus, f"{num_shards[corpus]:,}", *(f"{n:,}" for n in astuple(found)))
    total = sum(sums.values(), Counts())
    table.add_section()
    table.add_row("total", f"{num_shards.total():,}", *(f"{n:,}" for n in astuple(total)))
    return table
