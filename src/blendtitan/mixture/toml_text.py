"""A TOML file with other values for a few keys, and everything else as its author wrote it."""

import tomllib
from collections.abc import Mapping
from typing import Any

import tomlkit

from blendtitan.run.toml import toml_of


def with_keys(text: str, keys: Mapping[str, Any]) -> str:
    """A TOML text with other values, comments and order kept.

    Args:
        text: A TOML file of sections.
        keys: ``section.key`` to value. What is missing is added.
    """
    document = tomlkit.parse(text)
    expected = tomllib.loads(text)
    for name, value in keys.items():
        section, _, key = name.partition(".")
        if section not in document:
            document[section] = tomlkit.table()
        document[section][key] = tomlkit.value(toml_of(value))  # pyright: ignore[reportIndexIssue]
        expected.setdefault(section, {})[key] = value
    written = tomlkit.dumps(document)
    assert tomllib.loads(written) == expected
    return written
