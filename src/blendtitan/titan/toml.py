"""Read ``Settings`` from a TOML file and the command line, and write them to a TOML file.

Paths are relative to the working directory, as in TorchTitan, not to the file. The command line
overrides the file, and the file the defaults.
"""

from collections.abc import Sequence
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

from blendtitan.errors import ConfigError
from blendtitan.settings.known_keys import KEYS
from blendtitan.settings.toml import (
    COMMAND_LINE,
    RESOLVED,
    Values,
    read_arguments,
    read_values,
    toml_of,
    typed_values,
)
from blendtitan.storage.atomic_files import read_note, write_text
from blendtitan.titan.settings import Settings
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

CONFIG_FILE = "job.config_file"
"""The key that names the file, on the command line only."""

_HEAD = "# Every setting of this run, defaults included. It can be given to --job.config_file."


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings of a run from its command line: a file, and keys that override it.

    Args:
        arguments: ``--job.config_file PATH``, ``--section.key value`` or ``--section.key=value``;
            for true and false, ``--section.key`` and ``--section.no_key``.

    Raises:
        ConfigError: A section, key or value cannot be used, or the file cannot be read.
    """
    words = read_arguments(arguments)
    path = words.pop(CONFIG_FILE, None)
    values = {} if path is None else read_values(path)
    values |= typed_values(words)
    return _built(Settings, values, source=path or COMMAND_LINE)


def _built(kind: type, values: Values, *, source: str, section: str = "") -> Any:
    """A dataclass whose fields are keys or subsections."""
    hints = get_type_hints(kind)
    own: Values = {}
    below: dict[str, Values] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        if rest:
            below.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    for name, inner in below.items():
        path = f"{section}.{name}" if section else name
        own[name] = _built(hints[name], inner, source=source, section=path)
    try:
        return kind(**own)
    # TorchTitan's configurations check themselves with both.
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"{source}: section [{section}]: {error}") from error


def resolved_toml(settings: Settings) -> str:
    """All sections and keys, with the values of the file, the command line or the defaults."""
    sections: dict[str, list[str]] = {}
    for key in KEYS:
        section, _, name = key.rpartition(".")
        line = f"{name} = {toml_of(attrgetter(key)(settings))}"
        sections.setdefault(section, [f"[{section}]"]).append(line)
    return "\n\n".join([_HEAD, *map("\n".join, sections.values())]) + "\n"


def write_resolved(settings: Settings) -> Path:
    """Write all settings into the run's folder and return the path.

    A file of this name that no run wrote, such as the run's input configuration, is kept under
    another name.
    """
    path = Path(settings.job.dump_folder) / RESOLVED
    if path.is_file() and _HEAD not in read_note(path):
        names = (path.with_name(f"{path.stem}.before-run-{n}{path.suffix}") for n in count(1))
        kept = next(name for name in names if not name.exists())
        path.rename(kept)
        logger.warning("%s was not written by a run. It is kept as %s.", path, kept.name)
    write_text(path, resolved_toml(settings))
    return path
