"""The keys of a run, from its file and from the words of a command line that override it."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.settings.toml import (
    COMMAND_LINE,
    HINTS,
    Values,
    described,
    fits,
    known_key,
    read_arguments,
    read_keys,
    typed_values,
)


def read_run_keys(config: Path, arguments: Sequence[str]) -> Values:
    """The value of every key: of the command line, of the file, or its default.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, which override the file.

    Raises:
        ConfigError: A key or a value cannot be used, or a key has no value.
    """
    _check_have_values(arguments)
    return read_keys(config) | typed_values(read_arguments(arguments))


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
