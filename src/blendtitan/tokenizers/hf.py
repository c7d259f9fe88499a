"""Hugging Face ``tokenizer.json`` files."""

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from blendtitan.errors import ConfigError
from blendtitan.tokenizers.base import ABSENT, EncodedTexts, Tokenizer, file_in, read_bytes
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

HF_FILE = "tokenizer.json"

_NO_EOS = f"It has no special token at all: add one to {HF_FILE}, or use another tokenizer."


class HFTokenizer(Tokenizer):
    """A Hugging Face tokenizer: ``tokenizer.json``, or a folder that holds one.

    BOS, EOS, padding and unknown are named in ``tokenizer_config.json`` or
    ``special_tokens_map.json`` beside it; if both name one, the first counts.

    With some files the library reads control symbols from text: Unigram models that hold them as
    pieces, and added tokens that are not marked as special. Such symbols are spelled out.
    """

    def __init__(self, path: str | Path, eos: str | int | None = None) -> None:
        self.path = file_in(Path(path), HF_FILE)
        self._tokenizer = _read_tokenizer_json(self.path)
        self.vocab_size = _vocab_size(self._tokenizer)
        named = _named_special_tokens(self.path.parent)
        self.asked_eos = eos
        if eos is not None:
            named["eos_token"] = self._token_of(eos)
        self.bos_id = self._id_of(named, "bos_token")
        self.eos_id = self._id_of(named, "eos_token")
        self.pad_id = self._id_of(named, "pad_token")
        self.unk_id = self._id_of(named, "unk_token")
        control = {
            token: added.content
            for token, added in self._tokenizer.get_added_tokens_decoder().items()
            if added.special and token != self.unk_id
        }
        for role in ("bos_token", "eos_token", "pad_token"):
            if role in named:
                control[self._id_of(named, role)] = named[role]
        self.spelled_out = self._symbol_spellings(control)
        """Ids of the characters of each control symbol that the library reads from text."""
        eos = "no EOS" if self.eos_id == ABSENT else f"EOS {self.eos_id}"
        logger.info("%s: Hugging Face, %d ids, %s", self.path, self.vocab_size, eos)

    @property
    def unknown_id(self) -> int:
        """The id that the configuration names, or else the model."""
        if self.unk_id != ABSENT:
            return self.unk_id
        # Only WordPiece, WordLevel, BPE and Unigram have one, each under one of these names.
        model = _read_json(self.path)["model"]
        token, token_id = model.get("unk_token"), model.get("unk_id")
        if token is not None:
            token_id = self._tokenizer.token_to_id(token)
        return ABSENT if token_id is None else token_id

    def _token_of(self, eos: str | int) -> str:
        """The token that is requested as EOS by its spelling or id."""
        is_id = isinstance(eos, int)
        token = self._tokenizer.id_to_token(eos) if is_id else eos
        if token is None or self._tokenizer.token_to_id(token) is None:
            special = ", ".join(self.symbols()[:8])
            advice = f"Name one of its special tokens, such as {special}." if special else _NO_EOS
            raise ConfigError(
                f"{self.path}: has no token {eos!r}, which is requested as EOS. {advice}"
            )
        return token

    def _id_of(self, named: Mapping[str, str], role: str) -> int:
        token = named.get(role)
        if token is None:
            return ABSENT
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise ConfigError(
                f"{self.path}: has no token {token!r}, which the configuration beside it names "
                f"as {role}. Correct {role} there, or add the token to {HF_FILE}."
            )
        return token_id

    def _symbol_spellings(self, symbols: Mapping[int, str]) -> dict[int, list[int]]:
        spellings: dict[int, list[int]] = {}
        for symbol_id, symbol in symbols.items():
            if symbol_id not in self._library_ids([symbol])[0]:
                continue
            spelling = list(chain.from_iterable(self._library_ids(list(symbol))))
            if not symbols.keys().isdisjoint(spelling):
                raise ConfigError(
                    f"{self.path}: the control symbol {symbol!r} (id {symbol_id}) is ordinary "
                    f"text, so a document that contains it could not be separated. Use a tokenizer "
                    f"with dedicated symbols for BOS, EOS and padding."
                )
            spellings[symbol_id] = spelling
        return spellings

    def encode_batch(self, texts: list[str]) -> EncodedTexts:
        """See ``Tokenizer.encode_batch``."""
        encoded = self._library_ids(texts)
        if self.spelled_out:
            spelled = self.spelled_out
            encoded = [
                list(chain.from_iterable(spelled.get(token, (token,)) for token in ids))
                for ids in encoded
            ]
        lens = np.fromiter(map(len, encoded), dtype=np.int32, count=len(encoded))
        ids = np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(lens.sum()))
        return ids, lens

    def control_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        added = self._tokenizer.get_added_tokens_decoder().items()
        special = frozenset(token for token, content in added if content.special)
        return super().control_ids() | special

    def symbols(self) -> list[str]:
        """Spellings of all added tokens, special or not."""
        return [added.content for added in self._tokenizer.get_added_tokens_decoder().values()]

    def _library_ids(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises no other class
            raise ConfigError(
                f"{self.path}: the tokenizer cannot encode every text: {error}. Give its model an "
                f"unknown token that its vocabulary has."
            ) from error
        return [encoding.ids for encoding in encodings]

    def _decode_ids(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def _vocab_size(tokenizer: tokenizers.Tokenizer) -> int:
    """Smallest number that is larger than every id."""
    num_tokens = tokenizer.get_vocab_size(with_added_tokens=True)
    # If that many ids have a token, there are no others. Building a dictionary takes far longer.
    if all(map(tokenizer.id_to_token, range(num_tokens))):
        return num_tokens
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    content = read_bytes(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not a Hugging Face tokenizer: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _named_special_tokens(folder: Path) -> dict[str, str]:
    named: dict[str, str] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        config = _read_json(file) if file.is_file() else {}
        for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
            # A token is a string, or an AddedToken written as a dictionary.
            token = config.get(role)
            token = token.get("content") if isinstance(token, Mapping) else token
            if token:
                named[role] = token
    return named


def _read_json(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: found a {type(config).__name__}, expected a JSON object")
    return config
