"""A run's tokenizer as files that Hugging Face's transformers load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from blendtitan.errors import ConfigError
from blendtitan.files import read_file
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.tokenizers import ABSENT, HF_FILE, SP_FILE, HFTokenizer, SPTokenizer, Tokenizer

_CONFIG = "tokenizer_config.json"
_BESIDE = (_CONFIG, "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
"""Files beside a ``tokenizer.json`` that belong to it."""


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files of a tokenizer, and of its special tokens, into a folder.

    Raises:
        ConfigError: It is a Tekken tokenizer, which only mistral-common reads.
    """
    if isinstance(tokenizer, HFTokenizer):
        _write_hf(tokenizer, folder)
    elif isinstance(tokenizer, SPTokenizer):
        model = read_file(tokenizer.path)
        write_atomically(folder / SP_FILE, model)
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model).id_to_piece
        # Legacy is the only mode in which transformers gives the model's own ids.
        config = {"tokenizer_class": "SentencePieceBackend", "legacy": True}
        _write_config(folder, config | _special_tokens(tokenizer, pieces))
    else:
        raise ConfigError(
            f"{tokenizer.path}: this tokenizer cannot be exported, expected a tokenizer.json or a "
            f"SentencePiece model. Export with a tokenizer.json of the same ids: set "
            f"model.tokenizer_path to it in a copy of the run's configuration."
        )


def _write_hf(tokenizer: HFTokenizer, folder: Path) -> None:
    content = read_file(tokenizer.path)
    write_atomically(folder / HF_FILE, content)
    for name in _BESIDE:
        beside = tokenizer.path.with_name(name)
        if beside.is_file():
            write_atomically(folder / name, read_file(beside))
    found = json.loads(read_file(folder / _CONFIG)) if (folder / _CONFIG).is_file() else {}
    # Without a class, transformers would build the tokenizer that the kind of model usually has.
    default = {"tokenizer_class": "PreTrainedTokenizerFast"}
    special = _special_tokens(tokenizer, tokenizers.Tokenizer.from_buffer(content).id_to_token)
    _write_config(folder, default | special | found)


def _special_tokens(
    tokenizer: Tokenizer, piece_of: Callable[[int], str | None]
) -> dict[str, str | None]:
    ids = {
        "bos_token": tokenizer.bos_id,
        "eos_token": tokenizer.eos_id,
        "pad_token": tokenizer.pad_id,
        "unk_token": tokenizer.unk_id,
    }
    return {role: piece_of(token) for role, token in ids.items() if token != ABSENT}


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    write_atomically(folder / _CONFIG, json.dumps(config, indent=2).encode())
