"""A page: what it is made of, and how it becomes one HTML file that needs nothing else."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from blendtitan.errors import requires_extra
from blendtitan.runs.report.documents import SampleText
from blendtitan.runs.report.figures import DARK, LIGHT, Figure
from blendtitan.storage.atomic_files import check_replaceable, write_atomically, writing

# Before any work is done: gathering the facts of a run may take minutes.
with requires_extra("report", "an HTML page"):
    import jinja2
    from plotly.offline import get_plotlyjs

_GENERATOR = '<meta name="generator" content="blendtitan report">'
"""A line near the beginning of the template, by which earlier pages are recognised."""


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    key: float | None = None
    """Rows are sorted by it; None: by the text."""


class _Block:
    @property
    def kind(self) -> str:
        """Selects the part of the template."""
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class Paragraph(_Block):
    """Some sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Facts(_Block):
    """A few numbers that stand out: names and values."""

    heading: str
    """Empty where there is one run."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Picture(_Block):
    """A figure."""

    caption: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class SortedTable(_Block):
    """A table that can be sorted by any of its columns."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Samples(_Block):
    """Sample texts, under a heading that opens."""

    heading: str
    samples: tuple[SampleText, ...]


@dataclass(frozen=True, slots=True)
class Folded(_Block):
    """Blocks under a heading that opens."""

    heading: str
    blocks: tuple["Block", ...]


@dataclass(frozen=True, slots=True)
class SideBySide(_Block):
    """Blocks in columns, if the screen is wide enough."""

    blocks: tuple["Block", ...]


Block = Paragraph | Facts | Picture | SortedTable | Samples | Folded | SideBySide


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page; ``name`` is its anchor."""

    name: str
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


def page_html(page: Page) -> str:
    """The page as HTML.

    Text of any kind is escaped. The page allows no script except its own two, which it names by
    their digests, and no request: what a document says cannot do anything.
    """
    library, script = get_plotlyjs(), _text("page.js")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = [picture.figure for section in page.sections for picture in _all(section.blocks)]
    themes = {"light": LIGHT, "dark": DARK}
    return environment.from_string(_text("page.html")).render(
        page=page,
        style=_text("page.css"),
        library=library,
        script=script,
        digests=[_digest(library), _digest(script)],
        themes=themes,
        values=_values({"figures": figures, "themes": themes}),
    )


def check_page(path: Path) -> None:
    """Check that a page written to ``path`` would replace nothing but an earlier page.

    Raises:
        ConfigError: Something else has this name.
    """
    check_replaceable(path, _GENERATOR)


def write_page(page: Page, path: Path, *, overwrite: bool = False) -> int:
    """Write a page completely or not at all, and its folder if needed; its size in bytes.

    Args:
        page: The page.
        path: The file to write.
        overwrite: Replace a file that is not an earlier page.

    Raises:
        ConfigError: Another file has this name.
        OutputError: The disk is full, or does not let the file be written.
    """
    if not overwrite:
        check_page(path)
    content = page_html(page).encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return len(content)


def _text(name: str) -> str:
    return files("blendtitan.runs.report").joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What names a script in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _values(values: object) -> str:
    """JSON that no HTML parser takes for a tag or the end of a script."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _all(blocks: tuple[Block, ...]) -> Iterator[Picture]:
    """The pictures of some blocks, in the order of the page."""
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Folded | SideBySide):
            yield from _all(block.blocks)
