"""Two tiers behind one interface: the library that defines the ids, and a faster one.

The *reference* tier is the library that defines the ids. The *fast* tier is used only for
tokenizers for which a proof shows that it gives the same ids, and only for texts that the proof
covers: a text that contains anything disputed goes to the reference. As a last guard, about one
document in a thousand is encoded by both.
"""

import logging
from collections.abc import Iterable
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Literal, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, FastTierError
from blendtitan.tokenizers.base import EncodedTexts, Tokenizer, concatenated
from blendtitan.tokenizers.fast import FastEncoder, check_texts, difference, split
from blendtitan.tokenizers.proof import LISTED_BYTES, PROOF_VERSION, Proof, proof_of
from blendtitan.tokenizers.router import load_tokenizer, tokenizer_identity
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

Tier = Literal["auto", "fast", "reference"]
TIERS: tuple[Tier, ...] = get_args(Tier)

FAST_PROVEN = f"fast, proof {PROOF_VERSION}"
"""The fast tier in records of shards. Without the proof, as in older records, its ids may be
wrong."""

COMPARED_EVERY = 1024
"""One document in this many is also encoded by the reference tier."""

_EDGE_CHARS = 64


class Encoder:
    """Texts to ids. A pickled copy reads the file again, which must not have changed."""

    def __init__(
        self, tokenizer: Tokenizer, fast: FastEncoder | None = None, proof: Proof | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._fast = fast
        self._proof = proof or Proof()
        self._is_disputed = self._proof.disputed
        self.path = tokenizer.path
        self.eos_id = tokenizer.eos_id
        self.unk_id = tokenizer.unknown_id
        self.vocab_size = tokenizer.vocab_size
        self.tier: Tier = "fast" if fast else "reference"
        self.identity = tokenizer_identity(tokenizer)
        """Differs if the tokenizer's ids or special tokens could. Equal for both tiers."""

    @property
    def recorded_tier(self) -> str:
        """The tier as records of shards spell it."""
        return FAST_PROVEN if self.tier == "fast" else "reference"

    def encode(self, texts: list[str]) -> EncodedTexts:
        """Ids of many texts: see ``Tokenizer.encode_batch``.

        Raises:
            FastTierError: The fast tier failed, or gave other ids than the reference for one of
                the compared documents. Its earlier ids may be wrong as well.
        """
        if self._fast is None:
            return self._tokenizer.encode_batch(texts)
        return concatenated(self._compared(self._fast, texts))

    def check(self, texts: Iterable[str]) -> None:
        """Raise a ``FastTierError`` if the two tiers differ for any of these texts."""
        if self._fast is not None:
            check_texts(self._tokenizer, self._fast, texts, self._is_disputed)

    def _compared(self, fast: FastEncoder, texts: list[str]) -> list[NDArray[np.integer]]:
        disputed = [self._is_disputed(text) for text in texts]
        encoded = iter(fast.encode_texts(list(compress(texts, map(not_, disputed)))))
        both = [skip or is_compared(text) for skip, text in zip(disputed, texts, strict=True)]
        right = iter(split(*self._tokenizer.encode_batch(list(compress(texts, both)))))
        results: list[NDArray[np.integer]] = []
        for text, is_disputed, is_both in zip(texts, disputed, both, strict=True):
            expected = next(right) if is_both else None
            found = expected if is_disputed and expected is not None else next(encoded)
            if expected is not None and not np.array_equal(found, expected):
                raise FastTierError(difference(text, found, expected))
            results.append(found)
        return results

    def __reduce__(self) -> tuple[object, tuple[Tokenizer, Proof | None, str]]:
        # Without the megabytes of the fast tier, which would delay the start of each process.
        proof = self._proof if self._fast else None
        return _copied_encoder, (self._tokenizer, proof, self.identity)


def build_encoder(
    tokenizer: Tokenizer | str | Path,
    tier: Tier = "auto",
    *,
    first_texts: Iterable[str] = (),
    text_bytes: int | None = None,
) -> Encoder:
    """The fastest encoder that gives the ids which a tokenizer defines.

    Args:
        tokenizer: A loaded tokenizer, or the path that ``load_tokenizer`` takes.
        tier: ``auto`` is ``fast`` if that is proven to give the same ids, else ``reference``.
        first_texts: Some documents of the user, on which the two tiers are also compared.
        text_bytes: Bytes of text that each process encodes. ``auto`` makes no proof if it would
            cost more than it saves. None: a lot.

    Raises:
        ConfigError: There is no usable tokenizer, or ``fast`` is requested and not possible.
        FastTierError: The tiers differ for one of ``first_texts`` in spite of the proof.
    """
    if tier not in TIERS:
        raise ConfigError(f"the tokenizer tier is {tier!r}, expected one of {', '.join(TIERS)}")
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(tokenizer)
    if tier == "reference":
        return Encoder(tokenizer)
    try:
        identity = tokenizer_identity(tokenizer)
        proof = proof_of(tokenizer, identity, text_bytes=None if tier == "fast" else text_bytes)
        if proof is None:
            return Encoder(tokenizer)
        fast = FastEncoder.load(tokenizer, reads_symbols=proof.reads_symbols)
    except FastTierError as error:
        if tier == "fast":
            raise ConfigError(
                f"{tokenizer.path}: the tokenizer tier 'fast' cannot be used; 'auto' and "
                f"'reference' can: {error}"
            ) from error
        is_little = text_bytes is not None and text_bytes < LISTED_BYTES
        logger.log(
            logging.DEBUG if is_little else logging.WARNING,
            "%s: using the reference tokenizer tier (same ids, but slower): %s",
            *(tokenizer.path, error),
        )
        return Encoder(tokenizer)
    encoder = Encoder(tokenizer, fast, proof)
    encoder.check(first_texts)
    return encoder


def is_compared(text: str) -> bool:
    """Whether both tiers encode a document; the same in every run and process."""
    # Hashing whole texts would cost as much as encoding them.
    key = f"{text[:_EDGE_CHARS]}{len(text)}{text[-_EDGE_CHARS:]}"
    return crc32(key.encode(errors="surrogatepass")) % COMPARED_EVERY == 0


def _copied_encoder(tokenizer: Tokenizer, proof: Proof | None, identity: str) -> Encoder:
    fast = proof and FastEncoder.load(tokenizer, reads_symbols=proof.reads_symbols)
    encoder = Encoder(tokenizer, fast, proof)
    if encoder.identity != identity:
        raise ConfigError(f"{encoder.path}: was changed while in use. Run the command again.")
    return encoder
