"""Our tokenizers as TorchTitan's ``BaseTokenizer``."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torchtitan.components.tokenizer import BaseTokenizer, HuggingFaceTokenizer

from blendtitan.errors import ConfigError
from blendtitan.tokenizers import ABSENT, HFTokenizer, Tokenizer, build_tokenizer


class BlendTokenizer(BaseTokenizer):
    """A SentencePiece, Hugging Face or Tekken tokenizer, chosen by its backend."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        """The kind of tokenizer. ``build`` takes the folder."""

        backend: str = ""
        """``sptoken`` and its synonyms for SentencePiece, ``hf``, ``tekken``; empty: recognised."""

        path: str | None = None
        """File or folder of the tokenizer. None: the folder that ``build`` is given."""

    def __init__(self, config: Config, *, tokenizer_path: str) -> None:
        super().__init__()
        self.engine = _read_tokenizer(config.backend, config.path, tokenizer_path)
        self.bos_id = _present(self.engine.bos_id)
        self.eos_id = _present(self.engine.eos_id)

    def encode(self, text: str, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """Ids of a text."""
        return self.engine.encode(text, add_bos=add_bos, add_eos=add_eos)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids."""
        return self.engine.decode(token_ids)

    def get_vocab_size(self) -> int:
        """Smallest number that is larger than every id."""
        return self.engine.get_vocab_size()


# The configuration needs the vocabulary size before the trainer builds the tokenizer.
@lru_cache(maxsize=1)
def _read_tokenizer(backend: str, path: str | Path | None, folder: str) -> Tokenizer:
    model = {"tokenizer_backend": backend, "tokenizer_path": path, "hf_assets_path": folder}
    return build_tokenizer({"model": model})


def engine_tokenizer(tokenizer: BaseTokenizer) -> Tokenizer | None:
    """Our tokenizer for one of TorchTitan's. None: blendtitan does not know its kind."""
    if isinstance(tokenizer, BlendTokenizer):
        return tokenizer.engine
    if isinstance(tokenizer, HuggingFaceTokenizer):
        with suppress(ConfigError):
            return HFTokenizer(tokenizer.tokenizer_path)
    return None


def _present(token_id: int) -> int | None:
    return None if token_id == ABSENT else token_id
