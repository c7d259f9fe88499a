"""How far tokenising or indexing is, on a terminal or in a log."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.filesize import decimal, pick_unit_and_suffix
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_EVERY_S = 30.0
"""Seconds between two lines of progress, if the output is not a terminal."""

Totals = tuple[int, int, int]
"""Bytes read, documents and tokens."""


@contextmanager
def shown_progress(
    total_bytes: int, log: Callable[[str], object], *, verb: str = "tokenised"
) -> Generator[Callable[[Iterator[Totals]], None]]:
    """Show how far the work is: a bar on a terminal, or else a line every 30 seconds.

    Args:
        total_bytes: Bytes to read.
        log: Called with each line.
        verb: What happens to them, in these lines.

    Yields:
        A function to call often with the totals, of which it takes the next when it shows them.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total_bytes, log, verb)
        return
    # At most 80 columns.
    columns = (
        *(BarColumn(bar_width=12), DownloadColumn(), TransferSpeedColumn()),
        TextColumn("{task.fields[documents]} docs {task.fields[tokens]} tokens"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total_bytes, documents="0", tokens="0")

        def update(totals: Iterator[Totals]) -> None:
            num_bytes, documents, tokens = next(totals)
            progress.update(
                task, completed=num_bytes, documents=short(documents), tokens=short(tokens)
            )

        yield update


def _lines(
    total_bytes: int, log: Callable[[str], object], verb: str
) -> Callable[[Iterator[Totals]], None]:
    begin = last = time.monotonic()

    def update(totals: Iterator[Totals]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last = now
        num_bytes, documents, tokens = next(totals)
        speed = max(num_bytes, 1) / (now - begin)
        left = timedelta(seconds=round((total_bytes - num_bytes) / speed))
        log(
            f"{verb} {decimal(num_bytes)} of {decimal(total_bytes)} ({decimal(int(speed))}/s): "
            f"{documents:,} documents, {tokens:,} tokens; {left} left"
        )

    return update


def short(number: int) -> str:
    """A number in a few characters: ``12.3M``."""
    unit, suffix = pick_unit_and_suffix(number, ["", "k", "M", "B", "T", "Q"], 1000)
    return f"{number / unit:.1f}{suffix}" if suffix else str(number)
