"""Outputs that a command may replace."""

import os
import re
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.storage.atomic_files import read_note


def check_replaceable(path: Path, pattern: str) -> None:
    """Check that writing a file would replace nothing, or only an earlier output of its kind.

    ``pattern`` is a regular expression found in the beginning of every earlier output; ``$``
    matches the end of a line.

    Raises:
        ConfigError: Another file or folder has its name.
    """
    if not os.path.lexists(path):
        return
    found = read_note(path) if path.is_file() else ""
    if not re.search(pattern, found, re.MULTILINE):
        raise ConfigError(
            f"{path}: exists already, and was not written by this command. Choose another name or "
            f"folder, move it away, or replace it with --overwrite."
        )
