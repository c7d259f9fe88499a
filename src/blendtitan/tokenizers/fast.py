"""The fast tier: gigatoken's encoder, which is trusted as far as it was compared.

Of gigatoken the encoder of one text is used, and nothing else. It returns an array and leaves
the cores to our worker processes; its encoder of many texts needs a library that takes 0.2 s to
import, and its reader of files drops what it cannot read.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from blendtitan.errors import FastTierError
from blendtitan.tokenizers.base import Tokenizer
from blendtitan.tokenizers.memory import resident_bytes, return_freed_memory
from blendtitan.tokenizers.structure import fast_definition, read_symbols

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
    def load(cls, tokenizer: Tokenizer, *, reads_symbols: bool = True) -> Self:
        """The encoder of gigatoken for the file of ``tokenizer``, without its control symbols.

        Args:
            tokenizer: The tokenizer.
            reads_symbols: Whether gigatoken looks for the added tokens that are no control
                symbols.

        Raises:
            FastTierError: gigatoken is not installed, or does not support the file.
        """
        return cls.of(read_definition(tokenizer), reads_symbols=reads_symbols)

    @classmethod
    def of(cls, definition: Mapping[str, Any], *, reads_symbols: bool = True) -> Self:
        """The encoder of gigatoken for the content of a ``tokenizer.json``.

        Raises:
            FastTierError: gigatoken does not support it.
        """
        symbols = read_symbols(definition) if reads_symbols else []
        content = orjson.dumps({**definition, "added_tokens": symbols})
        with _guarded("gigatoken cannot load it"):
            from gigatoken.gigatoken_rs import load_hf_json

            return cls(partial(load_hf_json, content))

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


def is_installed() -> bool:
    """Whether gigatoken is there."""
    try:
        import gigatoken.gigatoken_rs  # noqa: F401
    except ImportError:
        return False
    return True


def read_definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ``tokenizer.json`` that gigatoken is to read for a tokenizer.

    Raises:
        FastTierError: gigatoken is not installed, or does not support the file.
    """
    if not is_installed():
        raise FastTierError(
            "the library gigatoken is not installed. Install it as the extra `fast`, with "
            "`pip install blendtitan[fast]` or `pip install gigatoken`."
        )
    with _guarded("gigatoken cannot load it"):
        return fast_definition(tokenizer)


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except FastTierError:
        raise
    # A panic of a Rust library is a BaseException of no importable type.
    except BaseException as error:
        reason = str(error).partition("\n")[0]
        raise FastTierError(f"{what} ({type(error).__name__}: {reason}).") from error
