"""Texts that every machine with Python has: sources, reference and readmes."""

import ast
import importlib.metadata
import inspect
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

# Tests are long lists of odd inputs, and some are not valid Python at all. Packages that are
# installed differ between machines, and the topics of pydoc are a corpus of their own.
_SKIPPED_FOLDERS = {
    *("test", "tests", "idle_test", "lib2to3"),
    *("site-packages", "dist-packages", "__pycache__", "pydoc_data"),
}


def code_texts() -> Iterator[str]:
    """The sources of the standard library, one file a document."""
    for path in _sources():
        text = _source(path)
        if text.strip():
            yield text


def reference_texts() -> Iterator[str]:
    """The language reference by topic, then the docstrings of the standard library.

    Docstrings are found by parsing: importing a module may have effects.
    """
    yield from (topics[name] for name in sorted(topics))
    for path in _sources():
        for node in ast.walk(ast.parse(_source(path))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False)
                if docstring and docstring.strip():
                    yield _encodable(inspect.cleandoc(docstring))


def readme_texts() -> Iterator[str]:
    """The long descriptions of the installed distributions, by name."""
    readmes = {
        distribution.name: distribution.metadata.json.get("description", "")
        for distribution in importlib.metadata.distributions()
    }
    for _, readme in sorted(readmes.items()):
        if isinstance(readme, str) and readme.strip():
            yield _encodable(readme)


def _sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    return [
        path
        for path in sorted(library.rglob("*.py"))
        if _SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts)
    ]


def _source(path: Path) -> str:
    with tokenize.open(path) as file:
        return file.read()


def _encodable(text: str) -> str:
    # An escape in a docstring may stand for half a character, which UTF-8 cannot hold.
    return text.encode(errors="replace").decode()
