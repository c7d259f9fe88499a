"""A TOML file as ``section.key`` and value, and values under the keys' own names."""

import tomllib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.files import MOST_TOML_BYTES, read_text
from blendtitan.run.old_keys import VALUES
from blendtitan.run.values import described, fits, none_of

Values = dict[str, Any]
"""``section.key`` to value."""


def read_toml(
    path: str | Path, check_section: Callable[[str, str], None] = lambda section, path: None
) -> Iterator[tuple[str, Any]]:
    """``section.key`` and value of everything in a file.

    Args:
        path: The file.
        check_section: Called with each section and the path; it raises where there is none such.

    Raises:
        ConfigError: The file cannot be read, or is not a TOML file of sections.
    """
    try:
        document = tomllib.loads(read_text(path, most_bytes=MOST_TOML_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    for section, content in document.items():
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {section} stands outside of a section, such as [training]")
        check_section(section, str(path))
        yield from _flat(section, content)


def named_values(
    given: Iterable[tuple[str, str, Any]], hint_of: Callable[[str], Any], source: str
) -> Values:
    """Values under the keys' own names, their types checked.

    Args:
        given: ``section.key`` as it is spelled, as it is called now, and its value.
        hint_of: The type of a key.
        source: Where they come from; it starts the errors.

    Raises:
        ConfigError: A value has another type, or synonyms of one key differ.
    """
    values: Values = {}
    spelled: dict[str, str] = {}
    for key, name, found in given:
        value = _modern(none_of(found, hint_of(name)), VALUES.get(name, {}))
        if not fits(value, hint_of(name)):
            expected = described(hint_of(name))
            raise ConfigError(f"{source}: {key} is {found!r}, expected {expected}")
        if name in values and values[name] != value:
            raise ConfigError(
                f"{source}: {spelled[name]} and its synonym {key} differ. Delete one of them."
            )
        values[name] = value
        spelled.setdefault(name, key)
    return values


def _flat(section: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(f"{section}.{key}", value)
        else:
            yield f"{section}.{key}", value


def _modern(value: Any, names: Mapping[Any, Any]) -> Any:
    """A value, or each entry of a list, as it is called now."""
    if isinstance(value, list):
        return [_modern(entry, names) for entry in value]
    # A table has no name: the check of its type refuses it.
    return names.get(value, value) if isinstance(value, Hashable) else value
