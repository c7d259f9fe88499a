"""Tables of numbers, as the commands and the log show them."""

import io

from rich.console import Console
from rich.table import Table

_ANY_WIDTH = 10_000


def number_table(first: str, *numbers: str) -> Table:
    """An empty table: one column of names, then columns of numbers, aligned to the right."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def show(table: Table) -> None:
    """Print a table to stdout; where that is no terminal, as wide as it is."""
    console = Console()
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    console.print(table)


def as_text(table: Table) -> str:
    """The lines of a table, as wide as it is."""
    console = Console(file=io.StringIO(), width=_ANY_WIDTH)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
