"""The keys of a TOML file that say what a run reads, with the trainer's types and defaults.

What trains has many more. Whoever looks into a run without torch reads these, and leaves it to
the trainer to check the others.
"""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from blendtitan.config import BlendConfig
from blendtitan.errors import ConfigError
from blendtitan.run.old_keys import RENAMED
from blendtitan.run.toml_file import Values, named_values, read_toml

_HINTS = get_type_hints(BlendConfig)

# These the loader's configuration spells otherwise.
_OWN = ("data_file_list", "data_cache_path", "seq_length", "segments", "vocab_size")

KEYS: Mapping[str, tuple[Any, Any]] = {
    "model.tokenizer_backend": (str, ""),
    "model.tokenizer_path": (str | None, None),
    "model.hf_assets_path": (str, ""),
    "training.dataset": (str, "blendcorpus"),
    "training.dataset_path": (str | None, None),
    "training.seq_len": (int, 2048),
    "training.local_batch_size": (int, 8),
    "training.global_batch_size": (int, -1),
    "training.steps": (int, 10000),
    "parallelism.pipeline_parallel_degree": (int, 1),
    "parallelism.pipeline_parallel_microbatch_size": (int, 1),
    "validation.enable": (bool, False),
    "validation.steps": (int, -1),
    "validation.samples": (int | None, None),
    "blendcorpus.data_file_list": (str | None, None),
    "blendcorpus.data_cache_path": (str | None, None),
    "blendcorpus.seq_length": (int | None, None),
    "blendcorpus.segment": (list[dict[str, Any]], []),
    "blendcorpus.max_epochs": (float, 4.0),
    "blendcorpus.tokenizer_check": (str, "error"),
    **{
        f"blendcorpus.{field.name}": (_HINTS[field.name], field.default)
        for field in fields(BlendConfig)
        if field.name not in _OWN and field.default is not MISSING
    },
}
"""Type and default of each key."""


def read_keys(path: Path) -> Values:
    """The value of every key of ``KEYS``: that of a file, under whatever spelling, or the default.

    Raises:
        ConfigError: The file cannot be read, ``[blendcorpus]`` has an unknown key, a value has
            another type, or synonyms differ.
    """
    named = [(key, RENAMED.get(key, key), given) for key, given in read_toml(path)]
    for key, name, _ in named:
        if name.startswith("blendcorpus.") and name not in KEYS:
            nearest = difflib.get_close_matches(name, KEYS, n=1, cutoff=0)[0]
            raise ConfigError(f"{path}: unknown key {key}. Did you mean {nearest}?")
    known = (each for each in named if each[1] in KEYS)
    defaults = {name: default for name, (_, default) in KEYS.items()}
    return defaults | named_values(known, lambda name: KEYS[name][0], str(path))


def check_follows(key: str, value: int | None, *, other: str, expected: int) -> None:
    """Check that a key that may be left out has the value of the one that it follows.

    Raises:
        ConfigError: It has another one.
    """
    if value not in (None, expected):
        raise ConfigError(
            f"{key} is {value}, expected {expected}, the value of {other}. Leave {key} out to "
            f"follow it."
        )
