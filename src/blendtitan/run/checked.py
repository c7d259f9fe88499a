"""The one check of the keys of a run: every key known, every value of its type and in range.

The trainer and the tools share it, so that both refuse the same files with the same words.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blendtitan.config import MAX_INT
from blendtitan.errors import ConfigError
from blendtitan.run.old_keys import REMOVED, RENAMED, Removed
from blendtitan.run.toml_file import Values, named_values

Hints = Mapping[str, Any]
"""``section.key`` of every known key, and its type."""


def checked_values(pairs: Iterable[tuple[str, Any]], hints: Hints, source: str) -> Values:
    """Values under the keys' own names. Keys of older releases without effect are left out.

    Args:
        pairs: ``section.key`` as it is spelled, and its value.
        hints: The known keys.
        source: Where the values come from; it starts the errors.

    Raises:
        ConfigError: A key is unknown or gone, or a value has the wrong type or is out of range.
    """

    def own() -> Iterator[tuple[str, str, Any]]:
        for key, given in pairs:
            removed = _removed(key)
            if removed is None:
                yield key, _own_name(key, hints, source), given
            else:
                _check_without_effect(removed, key, given, source)

    values = named_values(own(), hints.get, source)
    for key, value in values.items():
        _check_range(f"{source}: {key}", value)
    return values


def check_known_section(section: str, hints: Hints, source: str) -> None:
    """Check that there is such a section, or was in an older release.

    Raises:
        ConfigError: There never was.
    """
    known = {key.partition(".")[0] for key in [*hints, *RENAMED, *REMOVED]}
    if section not in known:
        sections = [*dict.fromkeys(key.rpartition(".")[0] for key in hints)]
        raise ConfigError(
            f"{source}: unknown section [{section}]. Did you mean [{_nearest(section, sections)}]?"
        )


def _removed(key: str) -> Removed | None:
    """What is known of a key that is gone, or else of its section."""
    return REMOVED.get(key) or REMOVED.get(key.partition(".")[0])


def _check_without_effect(removed: Removed, key: str, value: Any, source: str) -> None:
    if value not in removed.without_effect:
        raise ConfigError(
            f"{source}: {key} is {value!r}, but TorchTitan 0.3 has no such setting: "
            f"{removed.instead}. Delete it."
        )


def _own_name(key: str, hints: Hints, source: str) -> str:
    """The key, or what it is an old spelling of."""
    name = RENAMED.get(key, key)
    if name in hints:
        return name
    leaf = key.rpartition(".")[2]
    section = key.partition(".")[0]
    elsewhere = [each for each in hints if each.rpartition(".")[2] == leaf]
    inside = [each for each in [*hints, *RENAMED] if each.startswith(f"{section}.")]
    nearest = elsewhere[0] if elsewhere else _nearest(key, inside or hints)
    raise ConfigError(f"{source}: unknown key {key}. Did you mean {nearest}?")


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


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
