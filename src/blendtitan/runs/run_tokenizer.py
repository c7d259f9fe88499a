"""The tokenizer of a run, from the keys of its configuration."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from blendtitan.config import NEED_EOD
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
        ConfigError: The tokenizer cannot be used, or has no EOS, although the run needs one.
    """
    try:
        tokenizer = tokenizer_of(model_keys(values))
    except ConfigError as error:
        error.add_note(
            "Documents end in the tokenizer's EOS. Without the tokenizer, set "
            "blendcorpus.eod_token_id."
        )
        raise
    if tokenizer.eos_id != ABSENT:
        return tokenizer.eos_id
    keys = (*NEED_EOD, "removed_documents")
    if needing := next((key for key in keys if values[f"blendcorpus.{key}"]), None):
        beside = ""
        if tokenizer.path.suffix == ".json":
            beside = ", or name its EOS in a tokenizer_config.json beside it, as eos_token"
        raise ConfigError(
            f"{tokenizer.path}: the tokenizer has no EOS to end documents with, but "
            f"blendcorpus.{needing} needs one. If the data was tokenised with it, set "
            f"blendcorpus.eod_token_id to the id of the token that ends a document{beside}."
        )
    return None


@lru_cache(maxsize=1)
def _tokenizer(model: tuple[tuple[str, str | None], ...]) -> Tokenizer:
    with quietly():
        return build_tokenizer({"model": dict(model)})
