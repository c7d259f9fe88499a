"""Write docs/configuration.md from the dataclasses of the TOML sections.

Usage: .venv/bin/python scripts/write_configuration_page.py
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from blendtitan.titan.settings import SECTIONS, Section, Settings

PAGE = Path(__file__).parents[1] / "docs/configuration.md"

HEAD = """\
# Configuration

A run is a TOML file, named by `--job.config_file`. `--section.key value` on the command line wins
over the file, the file over the defaults. Unknown sections and keys are refused with the nearest
known one. Relative paths start at the working directory.

    torchrun --nproc-per-node 8 -m blendtitan.titan.train --job.config_file mine.toml \\
        --training.steps 100

`configs/debug.toml` is an example. This page is made from the source. Keys whose meaning is
TorchTitan's are described in full in TorchTitan's own documentation.
"""

NAMES = {int: "integer", float: "number", str: "string", bool: "true, false", NoneType: "none"}


def configuration_page() -> str:
    """The whole page."""
    summaries = _descriptions(Settings)
    parts = [_section(name, section, summaries) for name, section in SECTIONS.items()]
    return "\n".join([HEAD, *parts])


def _section(name: str, section: Section, summaries: dict[str, str]) -> str:
    fields = {field.name: field for field in dataclasses.fields(section.settings)}
    descriptions = _descriptions(section.settings)
    rows = [
        f"| `{key}` | {_values(hint)} | {_default(fields[key])} | {descriptions.get(key, '')} |"
        for key, hint in section.keys.items()
    ]
    rows += [f"| `{key}` | | | Synonym of `{own}`. |" for key, own in section.synonyms.items()]
    summary = summaries.get(name, "")
    head = [f"## [{name}]", "", *([summary, ""] if summary else [])]
    return "\n".join(
        [*head, "| key | values | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _descriptions(settings: type) -> dict[str, str]:
    """The text below each field. Of TorchTitan's, the first sentence."""
    found: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(description))),
                ):
                    whole = " ".join(description.split())
                    ours = owner.__module__.startswith("blendtitan.")
                    shown = whole if ours else re.split(r"(?<=\.) ", whole)[0]
                    found[name] = shown.replace("``", "`").replace("|", r"\|")
    return found


def _values(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return ", ".join(_values(argument) for argument in arguments)
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    return "list" if origin is list else NAMES[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory not in (dataclasses.MISSING, list, dict):
        made = getattr(field.default_factory, "__name__", "")
        if made == "default_spmd_backend":
            return "by machine"
        value = field.default_factory()  # type: ignore[misc]
    else:
        value = [] if field.default is dataclasses.MISSING else field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value is None else f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(configuration_page())
