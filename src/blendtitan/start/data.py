"""``data.toml`` of a run folder: its keys, and what each may hold."""

import difflib
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import tomlkit

from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.files import path_of
from blendtitan.prepare.input_file import TxtMode, is_url
from blendtitan.settings.toml import toml_document
from blendtitan.storage.list_forms import named_shards

_HEAD = """\
# What `blendtitan prepare` reads. After a change, run it again: finished work is kept.
# Relative paths begin in the folder where you run the command.
"""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The content of ``data.toml``."""

    tokenizer: str
    """File of the tokenizer."""

    corpora: dict[str, str] = field(default_factory=dict)
    """Text of each corpus: a file, a folder, a pattern or a URL."""

    epochs: dict[str, float] = field(default_factory=dict)
    """Epochs of each corpus in one pass over the blend; 1 if it is not named. 0: not read."""

    shards: list[str] = field(default_factory=list)
    """Folders of shards that exist already, prefixes of shards, or file lists."""

    key: str = "text"
    """Field or column that holds the text."""

    keys: dict[str, str] = field(default_factory=dict)
    """The same for single corpora."""

    txt: TxtMode = "file"
    """Whether a ``.txt`` file is one document, or each of its lines is."""


def read_data_config(path: Path) -> DataConfig:
    """The content of ``data.toml``.

    Raises:
        ConfigError: It is missing, or has other keys or values.
    """
    if path.parent.is_file():
        raise ConfigError(f"{path.parent}: is a file, expected the folder that init created")
    if not path.exists():
        raise ConfigError(
            f"{path}: there is no such file. Make a run folder first: blendtitan init"
        )
    values = toml_document(path)
    for key, value in values.items():
        _check_value(path, key, value)
    if "tokenizer" not in values:
        raise ConfigError(f'{path}: names no tokenizer, expected tokenizer = "PATH"')
    paths = {name: expanded(place) for name, place in values.get("corpora", {}).items()}
    shards = [*map(expanded, values.get("shards", []))]
    given = {"corpora": paths, "shards": shards, "tokenizer": expanded(values["tokenizer"])}
    config = DataConfig(**values | given)
    if not config.corpora and not config.shards:
        raise ConfigError(f"{path}: names no corpus, expected [corpora] or shards")
    try:
        known = {
            *config.corpora,
            *(shard.corpus for shard in named_shards([*map(path_of, shards)])),
        }
    except BlendTitanError as error:
        error.add_note(f"It is named by shards in {path}.")
        raise
    for name in config.keys:
        if name not in config.corpora:
            raise ConfigError(
                f"{path}: [keys] names {name!r}, but there is no such corpus in [corpora]. "
                f"{_suggested(name, config.corpora, 'The corpora are')}"
            )
    for name in config.epochs:
        if name not in known:
            raise ConfigError(
                f"{path}: [epochs] names {name!r}, but there is no such corpus. If it was dropped, "
                f"remove this line too. {_suggested(name, known, 'The corpora are')}"
            )
    if all(config.epochs.get(name) == 0 for name in known):
        raise ConfigError(
            f"{path}: [epochs] gives 0 to every corpus, expected one to read at least"
        )
    return config


def check_corpus_name(name: str, source: str) -> None:
    """Check that a corpus can have a folder of its name."""
    if not name or name.startswith(".") or "/" in name or {*name} >= {"'", '"'}:
        raise ConfigError(
            f"{source}: {name!r} cannot be the name of a corpus, which becomes the name of a "
            f"folder: expected one without /, without a dot in front, and without both kinds of "
            f"quotes"
        )


def expanded(location: str) -> str:
    """A location with ``~`` replaced: a shell does not do it inside of quotes."""
    return location if is_url(location) else os.path.expanduser(location)


def data_toml(config: DataConfig) -> str:
    """The text of a new ``data.toml``."""
    document = tomlkit.parse(_HEAD)
    document["tokenizer"] = config.tokenizer
    document["key"] = config.key
    document["key"].comment("field or column that holds the text")
    if config.txt != "file":
        document["txt"] = config.txt
        document["txt"].comment("each line of a .txt file is a document")
    if config.shards:
        document["shards"] = config.shards
    corpora = tomlkit.table()
    corpora.update(config.corpora)
    document["corpora"] = corpora
    if config.keys:
        keys = tomlkit.table()
        keys.update(config.keys)
        keys.comment("field or column of single corpora")
        document["keys"] = keys
    epochs = tomlkit.table()
    epochs.comment("how often one pass over the blend reads a corpus; 1 if it is not named")
    for name in config.corpora:
        epochs.add(name, 1.0)
    document["epochs"] = epochs
    return tomlkit.dumps(document)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_amount(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


_PATH = "a path in quotes"
_NAME = 'a name, such as "text"'
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "tokenizer": (_is_text, _PATH),
    "corpora": (_is_text, _PATH),
    "epochs": (_is_amount, "a number of at least 0"),
    "shards": (_is_text, _PATH),
    "key": (_is_text, _NAME),
    "keys": (_is_text, _NAME),
    "txt": (("file", "line").__contains__, '"file" or "line"'),
}
"""What a key may hold, or each value in it if it is a table or a list."""


def _check_value(path: Path, key: str, value: Any) -> None:
    """Check a key of the file, and all values in it."""
    known = [each.name for each in fields(DataConfig)]
    if key not in known:
        raise ConfigError(f"{path}: unknown key {key}. {_suggested(key, known, 'The keys are')}")
    is_valid, expected = _CHECKS[key]
    if key in ("corpora", "epochs", "keys"):
        if not isinstance(value, dict):
            raise ConfigError(
                f"{path}: {key} is {value!r}, expected a table [{key}], and below it for each "
                f"corpus a line with its name, = and {expected}"
            )
        for name, each in value.items():
            _check_entry(path, key, name, each)
        return
    if key == "shards" and not (isinstance(value, list) and all(map(is_valid, value))):
        raise ConfigError(f"{path}: shards is {value!r}, expected a list of paths in quotes")
    if key != "shards" and not is_valid(value):
        raise ConfigError(f"{path}: {key} is {value!r}, expected {expected}")


def _check_entry(path: Path, table: str, name: str, value: Any) -> None:
    """Check one line of a table."""
    is_valid, expected = _CHECKS[table]
    if not is_valid(value):
        remedy = f" To set {name}, write it above all tables." if name in _CHECKS else ""
        raise ConfigError(f"{path}: {table}.{name} is {value!r}, expected {expected}.{remedy}")
    if table == "corpora":
        check_corpus_name(name, str(path))


def _suggested(name: str, known: Collection[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"{otherwise} {', '.join(sorted(known))}."
