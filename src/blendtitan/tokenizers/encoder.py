"""Two tiers behind one interface: what is right, and what is fast where it is also right.

The *reference* tier is the library that defines the ids. The *fast* tier is used once it gives
the same ids for a fixed set of hard texts and for the first documents of the user, and for as
long as it does for about one document in a thousand.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, FastTierError
from blendtitan.tokenizers.base import Tokenizer, concatenated, read_bytes
from blendtitan.tokenizers.fast import FastEncoder
from blendtitan.tokenizers.hard_texts import hard_texts
from blendtitan.tokenizers.router import load_tokenizer
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

Tier = Literal["auto", "fast", "reference"]
TIERS: tuple[Tier, ...] = get_args(Tier)

COMPARED_EVERY = 1024
"""One document in this many is also encoded by the reference tier."""

# New in Unicode 17, of September 2025, and what lies between. tokenizers 0.23 knows version 16.
_DISPUTED = re.compile(
    "[\u088f\u0c5c\u0cdc\u1acf-\u1aeb\ua7ce-\ua7f1\U00010940-\U00011fff\U00016ea0-\U00018dff"
    "\U0001e6c0-\U0001e6ff\U0002b73a-\U0003ffff]"
)
_DISPUTED_LEADS = (b"\xe0", b"\xe1", b"\xea", b"\xf0")
"""First bytes of these characters in UTF-8."""

_EDGE_CHARS = 64
_CONTEXT_IDS = 8

EncodedTexts = tuple[NDArray[np.int32], NDArray[np.int32]]


class Encoder:
    """Texts to ids. A pickled copy reads the file again, which must not have changed."""

    def __init__(self, tokenizer: Tokenizer, fast: FastEncoder | None = None) -> None:
        self._tokenizer = tokenizer
        self._fast = fast
        self.path = tokenizer.path
        self.eos_id = tokenizer.eos_id
        self.vocab_size = tokenizer.vocab_size
        self.tier: Tier = "fast" if fast else "reference"
        self.identity = tokenizer_identity(tokenizer)
        """Differs when the tokenizer's ids or special tokens could. Equal for both tiers."""

    def encode(self, texts: list[str]) -> EncodedTexts:
        """Ids of many texts, without BOS and EOS, none of them a control symbol.

        Returns:
            The ids of all texts, one after the other, and the number of ids of each text.
            Shapes ``(sum(lens),)`` and ``(len(texts),)``.

        Raises:
            FastTierError: The fast tier failed, or gave other ids than the reference for one of
                the documents that are compared. Ids that it gave before can be wrong as well.
        """
        if self._fast is None:
            return self._tokenizer.encode_batch(texts)
        return concatenated(self._compared(self._fast, texts, is_compared))

    def check(self, texts: Iterable[str]) -> None:
        """Raise where the two tiers give different ids for any of these texts.

        Raises:
            FastTierError: They do, or the fast tier failed.
        """
        if self._fast is not None:
            self._compared(self._fast, list(texts), lambda _: True)

    def _compared(
        self, fast: FastEncoder, texts: list[str], is_chosen: Callable[[str], bool]
    ) -> list[NDArray[np.integer]]:
        encoded = fast.encode_texts(texts)
        places = [at for at, text in enumerate(texts) if is_chosen(text) or is_disputed(text)]
        right = self._tokenizer.encode_batch([texts[at] for at in places])
        for at, expected in zip(places, _split(*right), strict=True):
            if is_disputed(texts[at]):
                encoded[at] = expected
            elif not np.array_equal(encoded[at], expected):
                raise FastTierError(_difference(texts[at], encoded[at], expected))
        return encoded

    def __reduce__(self) -> tuple[object, tuple[Tokenizer, Tier, str]]:
        # Without what the fast tier has read, which is megabytes: processes start one after the
        # other when they have to wait for that.
        return _copied_encoder, (self._tokenizer, self.tier, self.identity)


def build_encoder(
    tokenizer: Tokenizer | str | Path, tier: Tier = "auto", *, first_texts: Iterable[str] = ()
) -> Encoder:
    """The fastest encoder that gives the ids which a tokenizer defines.

    Args:
        tokenizer: One that is loaded, or the path that ``load_tokenizer`` takes.
        tier: ``auto`` is ``fast`` where that is possible, else ``reference``.
        first_texts: Some documents of the user, on which the two tiers are compared.

    Raises:
        ConfigError: No usable tokenizer is there, or ``fast`` is asked for and not possible.
    """
    if tier not in TIERS:
        raise ConfigError(f"the tokenizer tier is {tier!r}, expected one of {', '.join(TIERS)}")
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(tokenizer)
    if tier == "reference":
        return Encoder(tokenizer)
    try:
        encoder = Encoder(tokenizer, FastEncoder.load(tokenizer))
        encoder.check([*hard_texts(tokenizer.symbols()), *first_texts])
    except FastTierError as error:
        if tier == "fast":
            raise ConfigError(
                f"{tokenizer.path}: the fast tokenizer tier cannot be used: {error} The tiers "
                f"'auto' and 'reference' can."
            ) from error
        logger.warning("%s: the reference tokenizer tier is used: %s", tokenizer.path, error)
        return Encoder(tokenizer)
    return encoder


def is_compared(text: str) -> bool:
    """Whether a document is one of those that both tiers encode, in every run and process."""
    # Hashing all of every text would cost as much as encoding it.
    key = f"{text[:_EDGE_CHARS]}{len(text)}{text[-_EDGE_CHARS:]}"
    return crc32(key.encode(errors="surrogatepass")) % COMPARED_EVERY == 0


def is_disputed(text: str) -> bool:
    """Whether a document holds characters that the tiers may see as of different kinds.

    Tokenizers cut words by the kinds of characters, which each library knows from its version of
    Unicode. Documents with characters of version 17 are encoded by the reference tier.
    """
    if text.isascii():
        return False
    # Looking for a byte is many times faster than looking for a range of characters.
    content = text.encode(errors="surrogatepass")
    return any(lead in content for lead in _DISPUTED_LEADS) and bool(_DISPUTED.search(text))


def tokenizer_identity(tokenizer: Tokenizer) -> str:
    """A hash of all that decides ids: the file's content, and what was read as special tokens."""
    special = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)
    described = f"{type(tokenizer).__name__} {tokenizer.vocab_size} {special}".encode()
    return hashlib.sha256(described + b"\n" + read_bytes(tokenizer.path)).hexdigest()


def _copied_encoder(tokenizer: Tokenizer, tier: Tier, identity: str) -> Encoder:
    encoder = Encoder(tokenizer, FastEncoder.load(tokenizer) if tier == "fast" else None)
    if encoder.identity != identity:
        raise ConfigError(f"{encoder.path}: was changed while it is in use. Run the command again.")
    return encoder


def _split(ids: NDArray[np.int32], lens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    # NumPy would split no ids of no texts into one piece.
    return np.split(ids, np.cumsum(lens)[:-1]) if len(lens) else []


def _difference(text: str, found: NDArray[np.integer], expected: NDArray[np.int32]) -> str:
    shared = min(len(found), len(expected))
    differs = np.flatnonzero(found[:shared] != expected[:shared])
    at = int(differs[0]) if len(differs) else shared
    window = slice(at, at + _CONTEXT_IDS)
    return (
        f"gigatoken gives other ids than the reference for the text {text[:_EDGE_CHARS]!r} of "
        f"{len(text):,} characters: from id number {at:,} on {found[window].tolist()}, expected "
        f"{expected[window].tolist()}."
    )
