"""The keys of a run, from its file and from the words of a command line that override it."""

from collections.abc import Sequence
from pathlib import Path

from blendtitan.settings.toml import Values, read_arguments, read_keys, typed_values


def read_run_keys(config: Path, arguments: Sequence[str]) -> Values:
    """The value of every key: of the command line, of the file, or its default.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, which override the file.

    Raises:
        ConfigError: A key or a value cannot be used, or a key has no value.
    """
    return read_keys(config) | typed_values(read_arguments(arguments))
