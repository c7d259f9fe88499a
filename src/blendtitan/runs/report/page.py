"""A page as one HTML file that needs nothing else: no network, no other file."""

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.runs.report.blocks import Block, Folded, Page, Picture, SideBySide
from blendtitan.runs.report.colors import DARK, LIGHT
from blendtitan.storage.atomic_files import check_replaceable, write_atomically, writing

_TEMPLATE, _STYLE, _SCRIPT = "page.html", "page.css", "page.js"

_GENERATOR = '<meta name="generator" content="blendtitan report">'
"""A line near the beginning of the template, by which earlier pages are recognised."""


def page_html(page: Page) -> str:
    """The page.

    Text of any kind is escaped, and the page allows no script but its own two, which it names by
    their digests, and no request: what a document says cannot do anything.

    Raises:
        ConfigError: The libraries of the extra ``report`` are missing.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(
            f"the page needs plotly and Jinja2, which cannot be imported ({error}). Install them "
            f"as the extra `report`, with `pip install 'blendtitan[report]'`."
        ) from error
    library, script = get_plotlyjs(), _text(_SCRIPT)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = [picture.figure for section in page.sections for picture in _all(section.blocks)]
    return environment.from_string(_text(_TEMPLATE)).render(
        page=page,
        style=_text(_STYLE),
        library=library,
        script=script,
        digests=[_digest(library), _digest(script)],
        themes={"light": LIGHT, "dark": DARK},
        values=_values({"figures": figures, "themes": {"light": LIGHT, "dark": DARK}}),
    )


def check_page(path: Path) -> None:
    """Check that a page written to ``path`` would replace nothing but an earlier page.

    Raises:
        ConfigError: Something else has this name.
    """
    check_replaceable(path, _GENERATOR)


def write_page(page: Page, path: Path, *, overwrite: bool = False) -> int:
    """Write a page, all of it or nothing, and its folder if need be; its size in bytes.

    Args:
        page: The page.
        path: The file to write.
        overwrite: Replace a file that is not an earlier page.

    Raises:
        ConfigError: The libraries of the extra ``report`` are missing, or another file has this
            name.
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
    """JSON that no HTML parser takes for a tag or an end of a script."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _all(blocks: tuple[Block, ...]) -> Iterator[Picture]:
    """The pictures of some blocks, in the order of the page."""
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Folded | SideBySide):
            yield from _all(block.blocks)
