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

from blendtitan.settings.known_keys import KEYS
from blendtitan.settings.old_keys import (
    CONVERSIONS,
    MOVED_SECTIONS,
    REMOVED,
    RENAMED,
    TRANSLATED,
)
from blendtitan.settings.toml import OLD_VALUES, toml_of
from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

from blendtitan.titan.settings import Settings  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs/configuration.md"

HEAD = """\
# Configuration

A run is configured by a TOML file (`--job.config_file` of the trainer). A `--section.key value` on
the command line overrides the file, and the file overrides the defaults. For a true/false key,
`--section.key` means true and `--section.no_key` means false. `none` stands for no value. Unknown
sections and keys are errors. They name the key that was probably meant, also for names of other
trainers, such as `learning_rate` or `train_iters`. Relative paths start at the working directory.

    blendtitan train mine.toml --nproc 8 --training.steps 100

A run writes all of its settings, defaults included, to `config.toml` in `job.dump_folder`. Train
with that file to start the same run again.

`configs/` has examples. This page is generated from the source. For keys that belong to TorchTitan,
see TorchTitan's documentation for details. Files written for TorchTitan 0.1 and 0.2, and for the
BlendCorpus integration with them, still work: see [Old spellings](#old-spellings) and
[Removed keys](#removed-keys).

In a training loop of your own, use `BlendConfig`. It has the keys of `[blendcorpus]` that samples
depend on, except that `data_file_list` and `seq_length` are required and that segments begin at
slots: `segments` is a tuple of `SegmentConfig`.
"""

NAMES = {int: "integer", float: "number", str: "string", bool: "true, false", NoneType: "none"}


def configuration_page() -> str:
    """The whole page."""
    sections = dict.fromkeys(key.rpartition(".")[0] for key in KEYS)
    return "\n".join([HEAD, *map(_section, sections), _old_spellings(), _removed()])


def _section(section: str) -> str:
    descriptions = _descriptions(_class_of(section))
    keys = {key.rpartition(".")[2]: key for key in KEYS if key.rpartition(".")[0] == section}
    rows = [
        f"| `{name}` | {_values(KEYS[key][0])} | {_default(key)} | {descriptions.get(name, '')} |"
        for name, key in keys.items()
    ]
    outer, _, field = section.rpartition(".")
    summary = _descriptions(_class_of(outer)).get(field, "")
    return _table(f"[{section}]", summary, ["key", "values", "default", "meaning"], rows)


def _class_of(section: str) -> type:
    """The dataclass of a section, that of all sections for an empty name."""
    kind: type = Settings
    for name in filter(None, section.split(".")):
        kind = typing.get_type_hints(kind)[name]
    return kind


def _old_spellings() -> str:
    rows = [
        f"| `[{old}]`{', also in `model.converters`' if 'quantize' in new else ''} | `[{new}]` |"
        for old, new in MOVED_SECTIONS.items()
    ]
    rows += [f"| `{old}` | `{new}` |" for old, new in sorted(RENAMED.items())]
    rows += [
        f"| `{old} = {toml_of(value)}` | `{new} = {toml_of(present)}` |"
        for old, (new, values) in TRANSLATED.items()
        for value, present in values.items()
    ]
    rows += [
        f"| `{old}`, in a file | `{entry}` in `model.converters` |"
        for old, entry in CONVERSIONS.items()
    ]
    rows += [
        f"| `{key} = {toml_of(old)}` | `{toml_of(new)}` |"
        for key, names in OLD_VALUES.items()
        for old, new in names.items()
    ]
    summary = (
        "These still work. A file that uses `float8` by one of these names, or sets "
        "`enable_fsdp_float8_all_gather`, and names no recipe has "
        '`quantize.linear.float8.recipe_name = "tensorwise"`, the default of those releases.'
    )
    return _table("Old spellings", summary, ["old", "now"], rows)


def _removed() -> str:
    rows = [
        f"| `{key}` | {', '.join(f'`{toml_of(value)}`' for value in removed.without_effect)} | "
        f"{removed.instead}{'; a warning' if removed.is_only_faster else ''} |"
        for key, removed in sorted(REMOVED.items())
    ]
    summary = (
        "TorchTitan 0.3 has no such settings. Values that match its behaviour are accepted; others "
        "are errors. The keys of a converter that the file does not list in `model.converters` "
        "only cause a warning. So does a key that made training faster, but not different."
    )
    return _table("Removed keys", summary, ["key", "accepted", "instead"], rows)


def _table(title: str, summary: str, columns: list[str], rows: list[str]) -> str:
    lines = [f"## {title}", "", *([summary, ""] if summary else [])]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows, ""]
    return "\n".join(lines)


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
                    if not ours:  # some begin a sentence without ending the one before
                        shown = re.split(r"(?<=[a-z]) (?=This )", shown)[0].rstrip(".") + "."
                    found[name] = shown.replace("``", "`").replace("|", r"\|")
    return found


def _values(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return ", ".join(_values(argument) for argument in arguments if argument is not Path)
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is list:
        (item,) = arguments
        return f"list of {_values(item)}" if typing.get_origin(item) is typing.Literal else "list"
    return NAMES[hint]


def _default(key: str) -> str:
    if key == "parallelism.spmd_backend":
        return "by machine"
    value = KEYS[key][1]
    return "none" if value is None else f"`{toml_of(value)}`"


if __name__ == "__main__":
    PAGE.write_text(configuration_page())
