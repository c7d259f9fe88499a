"""A TOML file and command-line arguments to ``Settings``: every key known, every type checked.

Paths are relative to the working directory, as in TorchTitan, not to the file. A value on the
command line wins over the file, the file over the defaults.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.run.old_keys import REMOVED, RENAMED, Removed
from blendtitan.run.toml_file import Values, named_values, read_toml
from blendtitan.run.values import value_of
from blendtitan.titan.sections import SECTIONS
from blendtitan.titan.settings import Settings

CONFIG_FILE = "job.config_file"
"""The key that names the file. It is given on the command line only."""

COMMAND_LINE = "command line"


def read_settings(arguments: Sequence[str]) -> Settings:
    """The settings of a run, from its command line: a file, and keys that win over it.

    Args:
        arguments: ``--job.config_file PATH`` and any number of ``--section.key value``,
            ``--section.key=value`` or, for true and false, ``--section.key`` and
            ``--section.no_key``.

    Raises:
        ConfigError: A section or key is unknown or gone, a value has the wrong type or is refused
            by its section, or the file cannot be read.
    """
    words = _read_arguments(arguments)
    path = words.pop(CONFIG_FILE, None)
    in_file = {} if path is None else _checked(read_toml(path, _check_known_section), path)
    given = _checked(_typed(words), COMMAND_LINE)
    values = in_file | given
    source = COMMAND_LINE if path is None else path
    return Settings(**{name: _built(name, values, source) for name in SECTIONS if "." not in name})


def _built(name: str, values: Values, source: str) -> Any:
    section = SECTIONS[name]
    own = {key: values[f"{name}.{key}"] for key in section.keys if f"{name}.{key}" in values}
    inner = {key: _built(path, values, source) for key, path in section.subsections.items()}
    try:
        return section.settings(**own, **inner)
    # TorchTitan's configurations check themselves with both.
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"{source}: section [{name}]: {error}") from error


def _typed(words: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """``section.key`` and value of everything on the command line."""
    for word, text in words.items():
        key, negated = _positive(word)
        _check_known_section(key.partition(".")[0], COMMAND_LINE)
        hint = _hint(RENAMED.get(key, key))
        value = value_of(text, bool if hint is None else hint)
        yield key, not value if negated and isinstance(value, bool) else value


def _positive(word: str) -> tuple[str, bool]:
    """``section.key`` and true for ``section.no_key``, where the key is a truth value."""
    section, _, key = word.rpartition(".")
    positive = f"{section}.{key.removeprefix('no_')}"
    negated = positive != word and _hint(RENAMED.get(positive, positive)) is bool
    return (positive, True) if negated else (word, False)


def _checked(pairs: Iterable[tuple[str, Any]], source: str) -> Values:
    """Values under the keys' own names, after checking both. Keys without effect are left out."""

    def own() -> Iterator[tuple[str, str, Any]]:
        for key, given in pairs:
            removed = _removed(key)
            if removed is None:
                yield key, _own_name(key, source), given
            else:
                _check_without_effect(removed, key, given, source)

    return named_values(own(), _hint, source)


def _removed(key: str) -> Removed | None:
    """What is known of a key that is gone, or else of its section."""
    return REMOVED.get(key) or REMOVED.get(key.partition(".")[0])


def _check_without_effect(removed: Removed, key: str, value: Any, source: str) -> None:
    if value not in removed.without_effect:
        raise ConfigError(
            f"{source}: {key} is {value!r}, but TorchTitan 0.3 has no such setting: "
            f"{removed.instead}. Delete it."
        )


def _hint(key: str) -> Any:
    """The type of a key; None if there is no such key."""
    section, _, name = key.rpartition(".")
    return SECTIONS[section].keys.get(name) if section in SECTIONS else None


def _own_name(key: str, source: str) -> str:
    """The key, or what it is an old spelling of."""
    name = RENAMED.get(key, key)
    if _hint(name) is not None:
        return name
    leaf = key.rpartition(".")[2]
    section = key.partition(".")[0]
    known = [f"{path}.{each}" for path in SECTIONS for each in SECTIONS[path].keys]
    elsewhere = [each for each in known if each.rpartition(".")[2] == leaf]
    inside = [each for each in [*known, *RENAMED] if each.startswith(f"{section}.")]
    nearest = elsewhere[0] if elsewhere else _nearest(key, inside or known)
    raise ConfigError(f"{source}: unknown key {key}. Did you mean {nearest}?")


def _check_known_section(section: str, source: str) -> None:
    once = {key.partition(".")[0] for key in [*RENAMED, *REMOVED]}
    if section not in SECTIONS and section not in once:
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
