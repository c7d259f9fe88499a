"""Tables and the progress bar of commands and logs."""

import io

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


class Table:
    """Rows of names and numbers. Markup in headings and cells is shown, not applied."""

    def __init__(self) -> None:
        self.rich = RichTable(box=None, pad_edge=False)

    def add_column(self, heading: str, *, is_number: bool) -> None:
        """Add a column: numbers are aligned to the right, long names folded."""
        if is_number:
            self.rich.add_column(Text(visible(heading)), justify="right")
        else:
            self.rich.add_column(Text(visible(heading)), overflow="fold")

    def add_row(self, *cells: str) -> None:
        """Add a row; cells that are left out are empty."""
        self.rich.add_row(*(Text(visible(cell)) for cell in cells))

    def add_section(self) -> None:
        """Draw a line below the last row, where tables have lines."""
        self.rich.add_section()


def number_table(first: str, *numbers: str) -> Table:
    """An empty table: one column of names, then columns of numbers, aligned to the right."""
    table = Table()
    table.add_column(first, is_number=False)
    for heading in numbers:
        table.add_column(heading, is_number=True)
    return table


def show(table: Table) -> None:
    """Print a table to stdout, unfolded if that is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    console.print(table.rich)


def as_text(table: Table) -> Lines:
    """The lines of a table, unfolded."""
    console = Console(file=io.StringIO(), width=_ANY_WIDTH)
    with console.capture() as capture:
        console.print(table.rich)
    return Lines("\n".join(line.rstrip() for line in capture.get().splitlines()))


def tokenizing_progress() -> Progress | None:
    """A bar of bytes read, ``documents`` and ``tokens``; None: stderr is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    columns = (
        *(TextColumn("tokenising"), BarColumn(), DownloadColumn(), TransferSpeedColumn()),
        TextColumn("{task.fields[documents]:,} documents, {task.fields[tokens]:,} tokens,"),
        *(TimeRemainingColumn(), TextColumn("left")),
    )
    return Progress(*columns, console=console)
