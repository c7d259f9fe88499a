"""The keys of a TOML file that say what a run reads, with the trainer's defaults.

The trainer uses many more. Tools that run without PyTorch check all of them as the trainer does,
and use these.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from blendtitan.config import BlendConfig
from blendtitan.errors import ConfigError
from blendtitan.run.checked import check_known_section, checked_values
from blendtitan.run.known_keys import HINTS
from blendtitan.run.toml_file import Values, read_toml

# The loader's configuration spells these differently.
_OWN = ("data_file_list", "data_cache_path", "seq_length", "segments", "vocab_size")

DEFAULTS: Mapping[str, Any] = {
    "model.tokenizer_backend": "",
    "model.tokenizer_path": None,
    "model.hf_assets_path": "",
    "training.dataset": "blendcorpus",
    "training.dataset_path": None,
    "training.seq_len": 2048,
    "training.local_batch_size": 8,
    "training.global_batch_size": -1,
    "training.steps": 10000,
    "parallelism.data_parallel_replicate_degree": 1,
    "parallelism.data_parallel_shard_degree": -1,
    "parallelism.pipeline_parallel_degree": 1,
    "parallelism.pipeline_parallel_microbatch_size": 1,
    "validation.enable": False,
    "validation.steps": -1,
    "validation.samples": None,
    "blendcorpus.data_file_list": None,
    "blendcorpus.data_cache_path": None,
    "blendcorpus.seq_length": None,
    "blendcorpus.segment": [],
    "blendcorpus.max_epochs": 4.0,
    "blendcorpus.tokenizer_check": "error",
    **{
        f"blendcorpus.{field.name}": field.default
        for field in fields(BlendConfig)
        if field.name not in _OWN and field.default is not MISSING
    },
}
"""Default of each key."""


def read_keys(path: Path) -> Values:
    """The value of every key of ``DEFAULTS``: from a file, in whatever spelling, or the default.

    Raises:
        ConfigError: The file cannot be read, any of its keys is unknown, a value has another type
            or is out of range, or synonyms differ.
    """

    def check_section(section: str, source: str) -> None:
        check_known_section(section, HINTS, source)

    values = checked_values(read_toml(path, check_section), HINTS, str(path))
    return {name: values.get(name, default) for name, default in DEFAULTS.items()}


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
