"""The one TOML reader: a file, or words of a command line, as checked values by ``section.key``.

The trainer and the tools read through it, so both refuse the same settings in the same words.
"""

import json
import math
import re
import tomllib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from blendtitan.config import MAX_INT
from blendtitan.errors import ConfigError
from blendtitan.files import MOST_TOML_BYTES, read_text
from blendtitan.settings.known_keys import KEYS

Hints = Mapping[str, Any]
"""``section.key`` to its type."""

Values = dict[str, Any]
"""``section.key`` to its value."""

HINTS: Hints = {key: hint for key, (hint, _) in KEYS.items()}
"""The keys of a run with TorchTitan 0.3."""

RESOLVED = "config.toml"
"""File in a run's ``job.dump_folder`` with all of its settings."""

COMMAND_LINE = "command line"

NONE = "none"
"""Stands for None, which TOML lacks."""

OLD_VALUES: Mapping[str, Mapping[Any, Any]] = {
    "model.name": {"blendcorpus": "llama3"},
    "model.flavor": {"debugmodel_flex_attn": "debugmodel", "8B_flex": "8B"},
    "quantize.linear.float8.filter_fqns": {"output": "lm_head"},
    "quantize.grouped_mm.mx.recipe_name": {"mxfp8": "mxfp8_rceil"},
}
"""Key to its old values, or old entries of its list, with their present names."""

_DEPENDS_ON_RELEASE = ("model.converters", "quantize.linear.float8.enable_fsdp_float8_all_gather")
"""Keys whose old values are read together with other keys."""


def read_keys(path: Path) -> Values:
    """The value of every known key: from a file, or its default.

    Raises:
        ConfigError: As ``read_values``.
    """
    return {key: default for key, (_, default) in KEYS.items()} | read_values(path)


def read_values(path: str | Path, hints: Hints = HINTS) -> Values:
    """The values that a file sets, by the present names of their keys.

    Raises:
        ConfigError: A section, key or value cannot be used, or the file cannot be read.
    """
    document = _document(path)
    for section in document:
        check_section(section, hints, str(path))
    return checked_values(_flat(document), hints, str(path))


def read_toml(path: str | Path) -> Values:
    """All values of a file by ``section.key``, unchecked.

    Raises:
        ConfigError: The file cannot be read, or is not a TOML file of sections.
    """
    return dict(_flat(_document(path)))


def toml_document(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: The file cannot be read, or is not a TOML file.
    """
    try:
        return tomllib.loads(read_text(path, most_bytes=MOST_TOML_BYTES).removeprefix("\ufeff"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        rules = "Text needs quotes, and each key and each [section] may appear once."
        rules = "Save it as UTF-8." if isinstance(error, UnicodeError) else rules
        raise ConfigError(f"{path}: not a TOML file: {error}. {rules}") from error


def _document(path: str | Path) -> dict[str, Any]:
    document = toml_document(path)
    for section, content in document.items():
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {section} is outside of a section, such as [training]")
    return document


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# Checks


def checked_values(pairs: Iterable[tuple[str, Any]], hints: Hints, source: str) -> Values:
    """Values by the present names of their keys. Old keys without effect are left out.

    Args:
        pairs: ``section.key`` as it is spelled, and its value.
        hints: The known keys.
        source: Origin of the values; it starts the errors.

    Raises:
        ConfigError: As ``read_values``, or synonyms of one key differ.
    """
    values: Values = {}
    spelled: dict[str, str] = {}
    for key, name, given in _named([*pairs], hints, source):
        value = _none(given, hints[name])
        value = listed(value) if get_origin(hints[name]) is list else value
        value = _present(value, OLD_VALUES.get(name, {}))
        if not fits(value, hints[name]):
            raise ConfigError(f"{source}: {key} is {given!r}, expected {described(hints[name])}")
        if name in values and values[name] != value:
            raise ConfigError(
                f"{source}: {spelled[name]} and its synonym {key} differ. Delete one of them."
            )
        _check_range(f"{source}: {name}", value)
        values[name] = value
        spelled.setdefault(name, key)
    return values


def typed_values(words: Mapping[str, str]) -> Values:
    """The values of a command line, by the present names of their keys; errors as in a file."""
    pairs: Values = {}
    for word, text in words.items():
        key, negated = _positive(word)
        check_section(key, HINTS, COMMAND_LINE)
        value = value_of(text, HINTS.get(known_key(key, HINTS) or "", bool))
        pairs[key] = not value if negated and isinstance(value, bool) else value
    return checked_values(pairs.items(), HINTS, COMMAND_LINE)


def _positive(word: str) -> tuple[str, bool]:
    """``section.key`` and true for ``section.no_key``, if the key is a truth value."""
    section, _, key = word.rpartition(".")
    if key.startswith("no_"):
        positive = f"{section}.{key.removeprefix('no_')}"
        if HINTS.get(known_key(positive, HINTS) or "") is bool:
            return positive, True
    return word, False


def read_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """The text of each ``section.key``; the last value counts.

    Raises:
        ConfigError: A word is neither a key nor a value, or a key lacks its value.
    """
    _check_have_values(arguments)
    words: dict[str, str] = {}
    waiting = None
    for argument in arguments:
        word, equals, text = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and "." in word:
            key = word.replace("-", "_")
            words[key] = text if equals else "true"
            waiting = None if equals else key
        elif waiting is not None and not argument.startswith("--"):
            words[waiting] = argument
            waiting = None
        else:
            raise ConfigError(f"{COMMAND_LINE}: found {argument!r}, expected --section.key value")
    return words


def _check_have_values(arguments: Sequence[str]) -> None:
    """Check that only keys that may be true stand without a value."""
    for word, following in pairwise([*arguments, "--"]):
        key = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or "=" in word or not following.startswith("--"):
            continue
        name = known_key(key, HINTS)
        if name is not None and not fits(True, HINTS[name]):
            raise ConfigError(
                f"{COMMAND_LINE}: {word} has no value, expected {described(HINTS[name])} after it"
            )


def _named(
    pairs: list[tuple[str, Any]], hints: Hints, source: str
) -> Iterable[tuple[str, str, Any]]:
    """Keys as they are spelled, their present names, and their values."""
    if all(key in hints and key not in _DEPENDS_ON_RELEASE for key, _ in pairs):
        return ((key, key, value) for key, value in pairs)
    from blendtitan.settings.old_files import present_keys

    return present_keys(pairs, hints, source)


def known_key(key: str, hints: Hints) -> str | None:
    """The present name of a key; None if there is no such key."""
    if key in hints:
        return key
    from blendtitan.settings.old_files import present_name

    name = present_name(key)
    return name if name in hints else None


def check_section(key: str, hints: Hints, source: str) -> None:
    """Check that the section of a key exists, or did in an older release."""
    section = key.partition(".")[0]
    if any(key.startswith(f"{section}.") for key in hints):
        return
    from blendtitan.settings.old_files import is_old_section

    if not is_old_section(section):
        from blendtitan.settings.suggestions import section_advice

        advice = section_advice(key, hints)
        raise ConfigError(f"{source}: unknown section [{section}]. {advice}")


def check_known(key: str, value: str, known: Iterable[str]) -> None:
    """Check that the value of a key is one of the known names."""
    if value not in known:
        from blendtitan.settings.suggestions import did_you_mean

        advice = did_you_mean(value, known)
        raise ConfigError(f"{key} is {value!r}, expected one of {', '.join(known)}.{advice}")


def _present(value: Any, names: Mapping[Any, Any]) -> Any:
    """A value, or each entry of a list, by its present name."""
    if isinstance(value, list):
        return [_present(entry, names) for entry in value]
    return names.get(value, value) if isinstance(value, Hashable) else value


def _check_range(name: str, value: Any) -> None:
    """Check that every number within a value is finite and has at most 64 bits."""
    match value:
        case dict():
            for key, entry in value.items():
                _check_range(f"{name}: {key}", entry)
        case list():
            for entry in value:
                _check_range(name, entry)
        case int() if abs(value) > MAX_INT:
            raise ConfigError(f"{name} is {value:,}, expected a whole number up to {MAX_INT:,}")
        case float() if not math.isfinite(value):
            raise ConfigError(f"{name} is {value}, expected a finite number")
        case _:
            pass


# Types


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type. An int is a float too; a bool is not an int."""
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return any(fits(value, kind) for kind in kinds)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        return isinstance(value, list) and all(fits(entry, item) for entry in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def described(hint: Any) -> str:
    """The values that have a type, for an error."""
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return " or ".join(described(kind) for kind in kinds if kind not in (NoneType, Path))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        if get_origin(item) is dict:
            return "a list of tables"
        return f"a list of {described(item)}" if get_origin(item) is Literal else "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    return names[hint]


def value_of(text: str, hint: Any) -> Any:
    """The value of a command-line word, for an expected type."""
    kinds = _alternatives(hint)
    if any(kind is str or get_origin(kind) is Literal for kind in kinds):
        return text
    if any(get_origin(kind) is list for kind in kinds) and not text.startswith("["):
        return listed(text)
    try:
        return tomllib.loads(f"value = {text.lower() if bool in kinds else text}")["value"]
    except (ValueError, RecursionError):
        return text  # rejected by the check of its type


def listed(value: Any) -> Any:
    """A list that is written as text with commas, as in TorchTitan 0.1; other values unchanged."""
    return [entry for entry in value.split(",") if entry] if isinstance(value, str) else value


def _none(value: Any, hint: Any) -> Any:
    """None if the value is the word for it and may be None, else the value."""
    is_none = isinstance(value, str) and value.lower() == NONE
    return None if is_none and NoneType in _alternatives(hint) else value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def toml_of(value: Any) -> str:
    """A value in TOML, on one line."""
    match value:
        case None:
            return f'"{NONE}"'
        case bool():
            return str(value).lower()
        case str() | Path():  # TOML's escapes are JSON's, and one more
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml_of, value))}]"
        case dict():
            pairs = (f"{_toml_key(key)} = {toml_of(entry)}" for key, entry in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case _:
            return repr(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_of(key)
