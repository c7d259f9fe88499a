"""A TOML file and command-line arguments to ``Settings``: every key known, every type checked.

Paths are relative to the working directory, as in TorchTitan, not to the file.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from blendtitan.errors import ConfigError
from blendtitan.titan.settings import SECTIONS, Settings

CONFIG_FILE = "job.config_file"
"""The key that names the file. It is given on the command line only."""

COMMAND_LINE = "command line"

Values = dict[str, dict[str, Any]]
"""Section to key to value."""


def read_settings(arguments: Sequence[str]) -> Settings:
    """The settings of a run, from its command line: a file, and keys that win over it.

    Args:
        arguments: ``--job.config_file PATH`` and any number of ``--section.key value``,
            ``--section.key=value`` or, for true, ``--section.key``.

    Raises:
        ConfigError: A section or key is unknown, a value has the wrong type or is refused by its
            section, or the file cannot be read.
    """
    words = _read_arguments(arguments)
    path = words.pop(CONFIG_FILE, None)
    in_file = _checked_file(path) if path is not None else {}
    given = _checked_words(words)
    source = COMMAND_LINE if path is None else path
    return Settings(
        **{
            name: _build_section(name, in_file.get(name, {}) | given.get(name, {}), source)
            for name in SECTIONS
        }
    )


def _build_section(name: str, values: Mapping[str, Any], source: str) -> Any:
    try:
        return SECTIONS[name].settings(**values)
    # TorchTitan's configurations check themselves with both.
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"{source}: section [{name}]: {error}") from error


def _checked_file(path: str) -> Values:
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    values: Values = {}
    for section, content in document.items():
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {section} stands outside of a section, such as [training]")
        _check_known_section(section, path)
        for key, value in content.items():
            _add(values, section, key, value, source=path)
    return values


def _checked_words(words: Mapping[str, str]) -> Values:
    values: Values = {}
    for word, text in words.items():
        section, _, key = word.partition(".")
        _check_known_section(section, COMMAND_LINE)
        hint = SECTIONS[section].keys.get(_own_name(section, key, COMMAND_LINE))
        _add(values, section, key, _value_of(text, hint), source=COMMAND_LINE)
    return values


def _add(values: Values, section: str, key: str, value: Any, *, source: str) -> None:
    """Add a value under its key's own name, after checking both."""
    name = _own_name(section, key, source)
    hint = SECTIONS[section].keys[name]
    if not _fits(value, hint):
        raise ConfigError(
            f"{source}: {section}.{key} is {value!r}, expected {' or '.join(_spelled(hint))}"
        )
    known = values.setdefault(section, {})
    if known.setdefault(name, value) != value:
        synonyms = [key for key, own in SECTIONS[section].synonyms.items() if own == name]
        raise ConfigError(
            f"{source}: {section}.{name} and its synonym {section}.{synonyms[0]} differ. Delete "
            f"one of them."
        )


def _own_name(section: str, key: str, source: str) -> str:
    """The key, or what it is a synonym of."""
    known = SECTIONS[section]
    name = known.synonyms.get(key, key)
    if name in known.keys:
        return name
    elsewhere = [f"{other}.{key}" for other in SECTIONS if key in SECTIONS[other].keys]
    nearest = elsewhere or [f"{section}.{_nearest(key, [*known.keys, *known.synonyms])}"]
    raise ConfigError(f"{source}: unknown key {section}.{key}. Did you mean {nearest[0]}?")


def _check_known_section(section: str, source: str) -> None:
    if section not in SECTIONS:
        raise ConfigError(
            f"{source}: unknown section [{section}]. Did you mean [{_nearest(section, SECTIONS)}]?"
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _read_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """``section.key`` to the text it is given; the last one counts."""
    words: dict[str, str] = {}
    waiting = None
    for argument in arguments:
        if argument.startswith("--"):
            key, equals, text = argument.removeprefix("--").partition("=")
            words[key] = text if equals else "true"
            waiting = None if equals else key
        elif waiting is not None:
            words[waiting] = argument
            waiting = None
        else:
            raise ConfigError(f"{COMMAND_LINE}: found {argument!r}, expected --section.key value")
    return words


def _value_of(text: str, hint: Any) -> Any:
    """The value that a text stands for, where a value of this type is expected."""
    kinds = _alternatives(hint)
    if NoneType in kinds and text.lower() == "none":
        return None
    if any(kind is str or get_origin(kind) is Literal for kind in kinds):
        return text
    if list[str] in kinds and not text.startswith("["):
        return text.split(",")
    try:
        return tomllib.loads(f"value = {text.lower() if bool in kinds else text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # the check of its type refuses it


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        return isinstance(value, list) and all(_fits(entry, item) for entry in value)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


_SPELLED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    NoneType: "none",
}


def _spelled(hint: Any) -> list[str]:
    """Descriptions of the values that fit, for an error."""
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return [text for kind in kinds for text in _spelled(kind) if kind is not NoneType]
    if get_origin(hint) is Literal:
        return [repr(choice) for choice in get_args(hint)]
    if get_origin(hint) is list:
        return ["a list"]
    return [_SPELLED[hint]]
