"""Whether the data of a run folder was prepared from its present ``data.toml``."""

import os
from pathlib import Path
from typing import Any

from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.runs.run_folder import DATA, FILE_LIST
from blendtitan.settings.toml import toml_document
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.visible import some_of

PREPARED = "prepared.toml"
"""What ``prepare`` read last, in a run folder."""

_HEAD = b"# The data.toml that `blendtitan prepare` read last. Edit data.toml, not this copy.\n\n"

_DEFAULTS: dict[str, Any] = {"key": "text", "txt": "file", "shards": []}


def keep_prepared(folder: Path, data: bytes) -> None:
    """Keep the ``data.toml`` from which the data of a run folder was prepared."""
    write_atomically(folder / PREPARED, _HEAD + data)


def unprepared_edit(folder: Path, file_list: str | Path) -> str:
    """A sentence if ``data.toml`` was edited, and not prepared again; otherwise an empty text.

    The tokenizer is left out, because it is compared with every shard.

    Args:
        folder: The run folder, or any other.
        file_list: That of the run. Of one that ``prepare`` did not write, nothing is known.
    """
    if not (folder / PREPARED).is_file():
        return ""
    try:
        if not os.path.samefile(folder / FILE_LIST, file_list):
            return ""
    except OSError:  # one of them does not exist, or is a URL
        return ""
    try:
        before = _entries(folder / PREPARED)
    except BlendTitanError as error:
        return f"{str(error).rstrip('.')}. To write it again: blendtitan prepare {folder}"
    try:
        now = _entries(folder / DATA)
    except BlendTitanError as error:  # it is missing, or not TOML
        return f"{str(error).rstrip('.')}. {folder / PREPARED} is a copy of what was prepared."
    keys = [key for key in {**before, **now} if key != "tokenizer"]
    edited = [key for key in keys if before.get(key) != now.get(key)]
    if not edited:
        return ""
    return (
        f"{folder / DATA} was edited after the data was prepared ({some_of(edited, 4)}). Run "
        f"blendtitan prepare {folder}. To train without the edit, undo it: {PREPARED} is a copy of "
        f"what was prepared."
    )


def check_current(folder: Path, file_list: str | Path) -> None:
    """Check that ``data.toml`` was not edited since the data was prepared; see above."""
    if edit := unprepared_edit(folder, file_list):
        raise ConfigError(edit)


def _entries(path: Path) -> dict[str, Any]:
    """The entries of a file, such as ``epochs.web``, without those that equal their default."""
    values = toml_document(path)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    entries = {key: value for key, value in values.items() if key not in tables} | {
        f"{key}.{name}": value for key, table in tables.items() for name, value in table.items()
    }
    return {key: value for key, value in entries.items() if value != _default(key)}


def _default(key: str) -> Any:
    return 1 if key.startswith("epochs.") else _DEFAULTS.get(key)
