"""Tables of numbers and the progress bar, as the commands and the log show them."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from blendtitan.visible import Lines, visible

_ANY_WIDTH = 10_000

Cell = str | int | None
"""A text, a whole number (shown with thousands separators), or nothing."""


class Table:
    """Rows of names and numbers. Headings and cells are shown as they are: nothing is markup."""

    def __init__(self) -> None:
        self.rich = RichTable(box=None, pad_edge=False)

    def add_column(self, heading: str, *, is_number: bool) -> None:
        """Add a column. Numbers are aligned to the right; long names are folded."""
        if is_number:
            self.rich.add_column(Text(visible(heading)), justify="right")
        else:
            self.rich.add_column(Text(visible(heading)), overflow="fold")

    def add_row(self, *cells: Cell) -> None:
        """Add a row; missing cells are empty."""
        self.rich.add_row(*(Text(visible(_shown(cell))) for cell in cells))

    def add_section(self) -> None:
        """Draw a line below the last row, where tables have lines."""
        self.rich.add_section()


def _shown(cell: Cell) -> str:
    return f"{cell:,}" if isinstance(cell, int) else cell or ""


def number_table(first: str, *numbers: str) -> Table:
    """An empty table: one column of names, then columns of numbers, aligned to the right."""
    table = Table()
    table.add_column(first, is_number=False)
    for heading in numbers:
        table.add_column(heading, is_number=True)
    return table


def filled_table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table of names in the first column and numbers in the others."""
    table = number_table(*headings)
    for row in rows:
        table.add_row(*row)
    return table


def show(table: Table) -> None:
    """Print a table to stdout. Where that is not a terminal, the table may be of any width."""
    console = Console()
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    console.print(table.rich)


def as_text(table: Table) -> Lines:
    """The lines of a table, at its full width."""
    console = Console(file=io.StringIO(), width=_ANY_WIDTH)
    with console.capture() as capture:
        console.print(table.rich)
    return Lines("\n".join(line.rstrip() for line in capture.get().splitlines()))


def tokenizing_progress() -> Progress | None:
    """A bar of bytes read, ``documents`` and ``tokens``; None if stderr is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    columns = (
        *(TextColumn("tokenising"), BarColumn(), DownloadColumn(), TransferSpeedColumn()),
        TextColumn("{task.fields[documents]:,} documents, {task.fields[tokens]:,} tokens,"),
        *(TimeRemainingColumn(), TextColumn("left")),
    )
    return Progress(*columns, console=console)
