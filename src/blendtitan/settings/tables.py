"""The checks that the tables of a list, such as ``[[blendcorpus.segment]]``, have in common."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError
from blendtitan.settings.suggestions import did_you_mean


def check_keys(table: Mapping[str, Any], kind: type, *, where: str) -> None:
    """Check that a table has only keys that are fields of a dataclass.

    Raises:
        ConfigError: It has another one.
    """
    known = [field.name for field in fields(kind)]
    for key in table.keys() - set(known):
        raise ConfigError(
            f"{where}: unknown key {key}.{did_you_mean(key, known)} The keys are "
            f"{', '.join(known)}."
        )


def check_begin(table: Mapping[str, Any], *, where: str) -> None:
    """Check that a table begins at one of ``from_step`` and ``from_tokens``.

    Raises:
        ConfigError: It does not, or not at an exact number.
    """
    begins = [key for key in ("from_step", "from_tokens") if table.get(key) is not None]
    if len(begins) != 1:
        raise ConfigError(
            f"{where}: found {' and '.join(begins) or 'neither from_step nor from_tokens'}, "
            f"expected one of from_step and from_tokens"
        )
    check_at_least(f"{where}: {begins[0]}", table[begins[0]], 0)
