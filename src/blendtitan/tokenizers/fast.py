"""The fast tier: gigatoken's encoder, which is trusted as far as it was compared.

Of gigatoken the encoder of one text is used, and nothing else. It returns an array and leaves
the cores to our worker processes; its encoder of many texts needs a library that takes 0.2 s to
import, and its reader of files drops what it cannot read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from blendtitan.errors import FastTierError
from blendtitan.tokenizers.base import Tokenizer, read_bytes
from blendtitan.tokenizers.memory import resident_bytes, return_freed_memory
from blendtitan.tokenizers.sp import SPTokenizer

CACHE_BYTES = 48 << 20
"""Growth of the process's memory while encoding after which the cache of words is dropped.

Real text adds up to one byte for each of its own; text that never repeats a word, up to 20.
"""


class FastEncoder:
    """Texts to ids with a backend that is built anew when its cache has grown too large."""

    def __init__(self, build_backend: Callable[[], Any]) -> None:
        self._build_backend = build_backend
        self._backend: Any = None
        self._renew()

    @classmethod
    def load(cls, tokenizer: Tokenizer) -> Self:
        """The encoder of gigatoken for the file of ``tokenizer``, without its special tokens.

        Raises:
            FastTierError: gigatoken is not installed, or does not support the file.
        """
        try:
            from gigatoken.gigatoken_rs import load_hf_json
        except ImportError as error:
            raise FastTierError(
                "the library gigatoken is not installed. Install it as the extra `fast`, with "
                "`pip install blendtitan[fast]` or `pip install gigatoken`."
            ) from error
        with _guarded("gigatoken cannot load it"):
            return cls(partial(load_hf_json, _without_special_tokens(_definition(tokenizer))))

    def encode_texts(self, texts: list[str]) -> list[NDArray[np.integer]]:
        """Ids of each text.

        Raises:
            FastTierError: gigatoken failed.
        """
        with _guarded("gigatoken failed"):
            before = resident_bytes()
            encoded: list[NDArray[np.integer]] = [self._backend.encode(text) for text in texts]
            # Where the system does not tell, the cache is taken to grow as the text does.
            grown = sum(map(len, texts)) if before is None else (resident_bytes() or 0) - before
            self._cache_bytes += max(0, grown)
            if self._cache_bytes > CACHE_BYTES:
                self._renew()
            return encoded

    def _renew(self) -> None:
        # The old backend first, so that the two are never held together.
        self._backend = None
        return_freed_memory()
        self._backend = self._build_backend()
        self._cache_bytes = 0


def _definition(tokenizer: Tokenizer) -> str | bytes:
    """What gigatoken loads: a ``tokenizer.json``."""
    content = read_bytes(tokenizer.path)
    if not isinstance(tokenizer, SPTokenizer):
        return content
    from gigatoken._load.sentencepiece import sentencepiece_to_tokenizer_json

    return sentencepiece_to_tokenizer_json(content)


def _without_special_tokens(definition: str | bytes) -> bytes:
    """The same tokenizer, for which control text is text. Other added tokens are still read."""
    content = orjson.loads(definition)
    content["added_tokens"] = [
        added for added in content.get("added_tokens") or [] if not added.get("special")
    ]
    return orjson.dumps(content)


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of a Rust library is a BaseException of no importable type.
    except BaseException as error:
        reason = str(error).partition("\n")[0]
        raise FastTierError(f"{what} ({type(error).__name__}: {reason}).") from error
