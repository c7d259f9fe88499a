"""Tables of numbers, for commands and logs."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from blendtitan.visible import Lines, visible

_ANY_WIDTH = 10_000

Cell = str | int | None
"""A text, a whole number (shown with thousands separators), or nothing."""


class Table:
    """Rows of names and numbers. Headings and cells are plain text, never markup.

    The first column and those of ``texts`` have names, which are folded if they are long; the
    others have numbers, aligned to the right. Missing cells are empty.
    """

    def __init__(
        self,
        headings: Sequence[str],
        rows: Iterable[Sequence[Cell]] = (),
        *,
        texts: Sequence[str] = (),
    ) -> None:
        self.rich = RichTable(box=None, pad_edge=False)
        for number, heading in enumerate(headings):
            is_text = number == 0 or heading in texts
            justify, overflow = ("left", "fold") if is_text else ("right", "ellipsis")
            self.rich.add_column(Text(visible(heading)), justify=justify, overflow=overflow)
        for row in rows:
            self.add_row(*row)

    def add_row(self, *cells: Cell) -> None:
        """Add a row."""
        shown = (f"{cell:,}" if isinstance(cell, int) else cell or "" for cell in cells)
        self.rich.add_row(*(Text(visible(cell)) for cell in shown))


def show(table: Table) -> None:
    """Print a table to stdout. If that is not a terminal, the table may have any width."""
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
