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

from blendtitan.run.old_keys import REMOVED, RENAMED, VALUES
from blendtitan.run.values import toml_of
from blendtitan.titan.sections import SECTIONS, Section
from blendtitan.titan.settings import Settings

PAGE = Path(__file__).parents[1] / "docs/configuration.md"

HEAD = """\
# Configuration

A run is a TOML file, named by `--job.config_file`. `--section.key value` on the command line wins
over the file, the file over the defaults. For a key that may be true, `--section.key` is true and
`--section.no_key` false; `none` stands for none. Unknown sections and keys are refused with the
nearest known one. Relative paths start at the working directory.

    torchrun --nproc-per-node 8 -m blendtitan.titan.train --job.config_file mine.toml \\
        --training.steps 100

A run writes all of its settings, defaults included, to `config.toml` in `job.dump_folder`. That
file gives the same run when it is named by `--job.config_file`.

`configs/` has examples. This page is made from the source. Keys whose meaning is TorchTitan's are
described in full in TorchTitan's own documentation. Files of TorchTitan 0.1 and 0.2, and of the
BlendCorpus integration with them, are read too: see [Old spellings](#old-spellings) and
[What is gone](#what-is-gone).

In a loop of your own, `BlendConfig` has the keys of `[blendcorpus]` that the data depends on. There
segments begin at slots: `segments` is a tuple of `SegmentConfig`.
"""

NAMES = {int: "integer", float: "number", str: "string", bool: "true, false", NoneType: "none"}


def configuration_page() -> str:
    """The whole page."""
    parts = [_section(name, section) for name, section in SECTIONS.items() if section.keys]
    return "\n".join([HEAD, *parts, _old_spellings(), _gone()])


def _section(name: str, section: Section) -> str:
    fields = {field.name: field for field in dataclasses.fields(section.settings)}
    descriptions = _descriptions(section.settings)
    rows = [
        f"| `{key}` | {_values(hint)} | {_default(fields[key])} | {descriptions.get(key, '')} |"
        for key, hint in section.keys.items()
    ]
    return _table(f"[{name}]", _summary(name), ["key", "values", "default", "meaning"], rows)


def _old_spellings() -> str:
    rows = [f"| `{old}` | `{new}` |" for old, new in sorted(RENAMED.items())]
    rows += [
        f"| `{key} = {toml_of(old)}` | `{toml_of(new)}` |"
        for key, names in VALUES.items()
        for old, new in names.items()
    ]
    return _table("Old spellings", "They mean the same.", ["old", "now"], rows)


def _gone() -> str:
    rows = [
        f"| `{key}` | {', '.join(f'`{toml_of(value)}`' for value in removed.without_effect)} | "
        f"{removed.instead} |"
        for key, removed in sorted(REMOVED.items())
    ]
    summary = (
        "TorchTitan 0.3 has no such settings. Values that ask for what happens anyway are "
        "accepted; others are an error."
    )
    return _table("What is gone", summary, ["key", "accepted", "instead"], rows)


def _table(title: str, summary: str, columns: list[str], rows: list[str]) -> str:
    lines = [f"## {title}", "", *([summary, ""] if summary else [])]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows, ""]
    return "\n".join(lines)


def _summary(name: str) -> str:
    """The text below the field that a section is."""
    *outer, field = name.split(".")
    settings = SECTIONS[".".join(outer)].settings if outer else Settings
    return _descriptions(settings).get(field, "")


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
    if origin is list:
        (item,) = arguments
        return f"list of {_values(item)}" if typing.get_origin(item) is typing.Literal else "list"
    return NAMES[hint]


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
