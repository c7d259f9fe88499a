"""The tokenizer of a run, from the keys of its configuration."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.tokenizers import ABSENT, Tokenizer, build_tokenizer
from blendtitan.visible import quietly

_KEYS = ("name", "flavor", "tokenizer_backend", "tokenizer_path", "hf_assets_path")


def model_keys(values: Mapping[str, Any]) -> Mapping[str, str | None]:
    """The keys of ``[model]`` that name the model and its tokenizer."""
    return {name: values[f"model.{name}"] for name in _KEYS}


def tokenizer_of(model: Mapping[str, str | None]) -> Tokenizer:
    """The tokenizer of ``model_keys``; raises ConfigError if it cannot be used."""
    return _tokenizer(tuple(model.items()))


def eos_id_of(values: Mapping[str, Any]) -> int | None:
    """The tokenizer's EOS, which ends a document unless configured otherwise.

    Raises:
        ConfigError: The tokenizer cannot be used.
    """
    try:
        eos_id = tokenizer_of(model_keys(values)).eos_id
    except ConfigError as error:
        error.add_note(
            "Documents end in the tokenizer's EOS. Without the tokenizer, set "
            "blendcorpus.eod_token_id."
        )
        raise
    return None if eos_id == ABSENT else eos_id


@lru_cache(maxsize=1)
def _tokenizer(model: tuple[tuple[str, str | None], ...]) -> Tokenizer:
    with quietly():
        return build_tokenizer({"model": dict(model)})
