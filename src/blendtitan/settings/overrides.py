"""The keys of a run, from its file and from the words of a command line that override it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blendtitan.errors import BlendTitanError
from blendtitan.settings.toml import COMMAND_LINE, Values, read_arguments, read_keys, typed_values


def read_run_keys(config: Path, arguments: Sequence[str]) -> Values:
    """The value of every key: of the command line, of the file, or its default.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, which override the file.

    Raises:
        ConfigError: A key or a value cannot be used, or a key has no value.
    """
    return read_keys(config) | typed_values(read_arguments(arguments))


@contextmanager
def naming_command_line(config: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Let errors of the file name the command line, if that is where the value is from."""
    try:
        yield
    except BlendTitanError as error:
        where, _, message = str(error.args[0]).partition(": ")
        key = message.partition(" ")[0].strip("[]")
        given = {name: name for name in read_arguments(arguments)}
        given |= {name.removeprefix("blendcorpus."): name for name in given}
        if where == str(config) and key in given:
            message = message.replace(key, given[key], 1)
            error.args = (f"{COMMAND_LINE}: {message}", *error.args[1:])
        raise
