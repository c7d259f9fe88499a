"""A TOML file and command-line arguments to ``Settings``: every key known, every type checked.

Paths are relative to the working directory, as in TorchTitan, not to the file. A value on the
command line wins over the file, the file over the defaults.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.run.checked import check_known_section, checked_values
from blendtitan.run.old_keys import RENAMED
from blendtitan.run.toml_file import Values, read_toml
from blendtitan.run.values import value_of
from blendtitan.titan.sections import SECTIONS
from blendtitan.titan.settings import Settings

CONFIG_FILE = "job.config_file"
"""The key that names the file. It is given on the command line only."""

COMMAND_LINE = "command line"

HINTS: Mapping[str, Any] = {
    f"{name}.{key}": hint
    for name, section in SECTIONS.items()
    for key, hint in section.keys.items()
}
"""Type of each ``section.key``, as the installed TorchTitan has them."""


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
    in_file = {} if path is None else checked_values(read_toml(path, _check_section), HINTS, path)
    given = checked_values(_typed(words), HINTS, COMMAND_LINE)
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
        _check_section(key.partition(".")[0], COMMAND_LINE)
        hint = HINTS.get(RENAMED.get(key, key))
        value = value_of(text, bool if hint is None else hint)
        yield key, not value if negated and isinstance(value, bool) else value


def _positive(word: str) -> tuple[str, bool]:
    """``section.key`` and true for ``section.no_key``, where the key is a truth value."""
    section, _, key = word.rpartition(".")
    positive = f"{section}.{key.removeprefix('no_')}"
    negated = positive != word and HINTS.get(RENAMED.get(positive, positive)) is bool
    return (positive, True) if negated else (word, False)


def _check_section(section: str, source: str) -> None:
    check_known_section(section, HINTS, source)


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
