"""How Sphinx makes the site: ``scripts/build_site``.

The source is the repository itself, so that the links from ``docs/`` to ``benchmarks/`` and
``experiments/`` lead to pages here as they do in the repository, and pages stay plain Markdown.
"""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

ROOT = Path(__file__).parents[2]

INDEX = "docs/index"

# Pages of docs/ by caption. Those that are not named here follow the last of "Use".
NAVIGATION = {
    "Use": [
        *(
            "quickstart",
            "preparing",
            "changing",
            "skip_and_remove",
            "resume",
            "torchtitan",
            "launching",
            "trainers",
            "remote",
            "losses",
            "balance",
        ),
        *("looking", "mixtures", "fault_tolerance"),
    ],
    "Understand": ["order", "design", "reliability", "performance", "glossary"],
    "Move from": [
        "blendcorpus",
        "moving-from-blendcorpus",
        "moving-from-megatron",
        "moving-from-torchtitan",
        "moving-from-streaming",
    ],
    "Look up": ["configuration", "commands", "api", "file-format"],
}
MEASURED = sorted(
    str(page.relative_to(ROOT).with_suffix(""))
    for page in [*ROOT.glob("benchmarks/*.md"), ROOT / "experiments/README.md"]
)
PROJECT = ["CHANGELOG", "CONTRIBUTING"]

project = "blendtitan"
html_title = "blendtitan"
root_doc = INDEX
extensions = ["myst_parser", "sphinx.ext.autodoc"]
include_patterns = ["docs/*.md", *(f"{page}.md" for page in [*MEASURED, *PROJECT])]
# Folders with data and environments are large, and some are links to themselves.
exclude_patterns = [
    path.name
    for path in ROOT.iterdir()
    if path.is_dir() and path.name not in ("docs", "benchmarks", "experiments")
]

myst_heading_anchors = 4  # the anchors that GitHub gives headings
nitpicky = True
# Types in signatures belong to Python, NumPy and torch, whose pages are not part of this site.
nitpick_ignore_regex = [("py:.*", ".*")]
highlight_language = "none"  # only blocks that name a language are coloured
smartquotes = False  # options begin with two hyphens

autodoc_member_order = "bysource"
autodoc_mock_imports = ["datatrove"]  # an optional dependency, large
python_maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["width.css"]
html_extra_path = ["root"]  # the first page leads to docs/index.html
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False


def add_navigation(app: Sphinx, name: str, content: list[str]) -> None:
    """Append the navigation to the first page, which stays plain Markdown in the repository."""
    if name == INDEX:
        content[0] += "\n" + "\n".join(
            _toctree(caption, pages) for caption, pages in _groups().items()
        )


def _groups() -> dict[str, list[str]]:
    """Pages by caption, relative to the repository."""
    there = {page.stem for page in ROOT.glob("docs/*.md")} - {Path(INDEX).name}
    named = {name for names in NAVIGATION.values() for name in names}
    groups = {caption: [n for n in names if n in there] for caption, names in NAVIGATION.items()}
    groups["Use"] += sorted(there - named)
    paths = {caption: [f"docs/{name}" for name in names] for caption, names in groups.items()}
    return paths | {"Measured": MEASURED, "Project": PROJECT}


def _toctree(caption: str, pages: list[str]) -> str:
    entries = "".join(f"/{page}\n" for page in pages)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}```\n"


def read_google_style(
    app: Sphinx, what: Any, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Convert the sections of a docstring (``Args:``, ``Raises:``).

    The napoleon extension would also take ``None: not checked.`` in the description of a field
    for a type.
    """
    if what not in ("attribute", "property", "data"):
        lines[:] = GoogleDocstring(lines, what=what, name=name, obj=obj).lines()


def setup(app: Sphinx) -> None:
    """Connect the functions above to the events of a build."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", read_google_style)
