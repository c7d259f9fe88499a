"""What a page is made of, before it is HTML."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from blendtitan.runs.report.figures import Figure
from blendtitan.runs.report.texts import SampleText

Form = Callable[[Any], str]
"""How a number is written."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table."""

    text: str
    key: float | None = None
    """What rows are sorted by; None: the text."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A few numbers that stand out: what each is, and its value."""

    kind: ClassVar[str] = "facts"
    heading: str
    """Whose they are, where there are several; else empty."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure."""

    kind: ClassVar[str] = "picture"
    caption: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class SortedTable:
    """A table that is sorted by any of its columns."""

    kind: ClassVar[str] = "table"
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """Sample texts, under a heading that opens."""

    kind: ClassVar[str] = "samples"
    heading: str
    samples: tuple[SampleText, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks under a heading that opens."""

    kind: ClassVar[str] = "folded"
    heading: str
    blocks: tuple["Block", ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Blocks in columns, where the screen is wide enough."""

    kind: ClassVar[str] = "side by side"
    blocks: tuple["Block", ...]


Block = Paragraph | Facts | Picture | SortedTable | Samples | Folded | SideBySide


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page."""

    name: str
    """The anchor."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page."""

    title: str
    lead: str
    sections: tuple[Section, ...]


def table(caption: str, headings: Sequence[str], rows: Iterable[Iterable[Cell]]) -> SortedTable:
    """A table of cells."""
    return SortedTable(caption, tuple(headings), tuple(tuple(row) for row in rows))


def number_cell(value: Any, form: Form) -> Cell:
    """A number as ``form`` writes it, sorted by what it is; empty where there is none."""
    return Cell("") if value is None else Cell(form(value), float(value))


def count(number: int) -> str:
    """A whole number."""
    return f"{number:,}"


def percent(share: float) -> str:
    """A fraction in percent."""
    return f"{share:.2%}"


def digits(number: float) -> str:
    """At least three digits."""
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"
