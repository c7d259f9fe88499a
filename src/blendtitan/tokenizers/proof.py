"""The proof that both tiers give the same ids for a tokenizer, or for which texts they do not.

It has two parts. ``scan`` compares how the tiers cut and normalise text, which depends on the
structure of the tokenizer only. ``prove_vocabulary`` compares what depends on its pieces and
symbols. Structures for which the first part was done with the installed libraries are listed in
``proven.json``; other proofs are made once, and kept in the user's cache.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from blendtitan.errors import FastTierError
from blendtitan.tokenizers import proof_cache
from blendtitan.tokenizers.base import Tokenizer, read_bytes
from blendtitan.tokenizers.disputed import DisputedTexts, Ranges
from blendtitan.tokenizers.fast import FastEncoder, read_definition
from blendtitan.tokenizers.hard_texts import hard_texts
from blendtitan.tokenizers.proof_texts import (
    piece_texts,
    random_texts,
    run_texts,
    symbol_texts,
    vocabulary_pieces,
)
from blendtitan.tokenizers.scan import check_texts, scan_structure
from blendtitan.tokenizers.sp import SPTokenizer
from blendtitan.tokenizers.structure import (
    Structure,
    library_versions,
    read_symbols,
    structure_of,
    symbol_markers,
)
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

PROOF_VERSION = 2
"""Of what a proof covers. Ids of the fast tier are only trusted with a proof of this version."""

SAMPLE_TEXTS = 50_000
"""Random texts that a proof compares."""

LISTED_BYTES = 50_000_000
"""Bytes of text per process from which a proof of a listed structure saves time."""

UNLISTED_BYTES = 300_000_000
"""The same for a proof that has to compare all code points first."""


@dataclass(frozen=True, slots=True)
class Proof:
    """For which texts the fast tier gives the ids of the reference."""

    ranges: Ranges = ()
    """Code points: texts that contain one are disputed."""

    markers: tuple[str, ...] = ()
    """Strings: texts that contain one are disputed."""

    reads_symbols: bool = False
    """Whether the fast tier looks for added tokens itself."""

    refusal: str = ""
    """Why the fast tier cannot be used for any text. Empty: it can."""

    is_refuted: bool = False
    """Whether an earlier proof said otherwise, and a run showed that it was wrong."""

    @property
    def disputed(self) -> DisputedTexts:
        """The test for texts that only the reference may encode."""
        return DisputedTexts(self.ranges, self.markers)


def proof_of(tokenizer: Tokenizer, identity: str, *, text_bytes: int | None = None) -> Proof | None:
    """The proof for a tokenizer: the one in the cache, or else one that is made now.

    Args:
        tokenizer: The tokenizer.
        identity: A hash of all that its ids depend on.
        text_bytes: How much text each process is to encode. None: a lot.

    Returns:
        None if there is no proof yet, and making one takes longer than it saves.

    Raises:
        FastTierError: The tiers differ, or the fast one does not support the tokenizer.
    """
    definition = read_definition(tokenizer)
    key = _cache_key(identity)
    proof = _read(key)
    if proof is None:
        structure = structure_of(tokenizer, definition)
        is_listed = structure.key in listed_structures()
        worthwhile = LISTED_BYTES if is_listed else UNLISTED_BYTES
        if text_bytes is not None and text_bytes < worthwhile:
            return None
        with proof_cache.locked(key):
            proof = _read(key) or _made(tokenizer, key, structure, definition)
    if proof.refusal:
        raise FastTierError(proof.refusal)
    return proof


def refute(identity: str, reason: str) -> None:
    """Keep the fast tier from being used for a tokenizer, after a difference in a run."""
    key = _cache_key(identity)
    known = _read(key)
    if known is None or not known.is_refuted:
        refusal = f"{reason} (To try it again, delete {proof_cache.cache_path(key)}.)"
        _write(key, Proof(refusal=refusal, is_refuted=True))


def check_not_refuted(identity: str) -> None:
    """Check that no run has shown the proof for a tokenizer to be wrong.

    Raises:
        FastTierError: One has, so that what the fast tier made before is not to be trusted.
    """
    known = _read(_cache_key(identity))
    if known is not None and known.is_refuted:
        raise FastTierError(known.refusal)


def prove(
    tokenizer: Tokenizer,
    structure: Structure,
    definition: dict[str, Any],
    *,
    sample_texts: int | None = None,
) -> Proof:
    """Compare the tiers on everything that a proof covers.

    Raises:
        FastTierError: The fast tier cannot be used.
    """
    ranges = listed_structures().get(structure.key)
    if ranges is None:
        ranges = _scanned(structure)
    count = SAMPLE_TEXTS if sample_texts is None else sample_texts
    return prove_vocabulary(tokenizer, ranges, definition, sample_texts=count)


def prove_vocabulary(
    tokenizer: Tokenizer, ranges: Ranges, definition: dict[str, Any], *, sample_texts: int
) -> Proof:
    """Compare the tiers on what depends on the pieces and symbols of one tokenizer.

    Raises:
        FastTierError: They differ for a text that has no disputed characters.
    """
    symbols = [symbol["content"] for symbol in read_symbols(definition)]
    reads_symbols = bool(symbols) and not isinstance(tokenizer, SPTokenizer)
    proof = Proof(ranges, reads_symbols=reads_symbols)
    every = list(dict.fromkeys([*symbols, *tokenizer.symbols()]))
    if reads_symbols:
        fast = FastEncoder.of(definition)
        try:
            check_texts(tokenizer, fast, symbol_texts(every), proof.disputed)
        except FastTierError:
            reads_symbols = False
    if not reads_symbols:
        proof = Proof(ranges, symbol_markers(tokenizer, definition))
    fast = FastEncoder.of(definition, reads_symbols=reads_symbols)
    texts = vocabulary_texts(tokenizer, every, sample_texts)
    check_texts(tokenizer, fast, texts, proof.disputed)
    return proof


def vocabulary_texts(
    tokenizer: Tokenizer, symbols: list[str], sample_texts: int, seed: int = 0
) -> Iterator[str]:
    """All texts on which the tiers are compared for one tokenizer."""
    pieces = vocabulary_pieces(tokenizer)
    yield from hard_texts(symbols)
    yield from symbol_texts(symbols)
    yield from piece_texts(pieces)
    yield from run_texts()
    yield from real_texts()
    yield from random_texts(sample_texts, pieces=pieces, symbols=symbols, seed=seed)


def real_texts() -> Iterable[str]:
    """Prose and code that every installation of Python has."""
    from pydoc_data.topics import topics

    return topics.values()


@cache
def listed_structures() -> dict[str, Ranges]:
    """Disputed code points of the structures that were proven with the installed libraries."""
    content = orjson.loads(read_bytes(Path(__file__).with_name("proven.json")))
    if (content["proof"], content["libraries"]) != (PROOF_VERSION, library_versions()):
        return {}
    return {key: _ranges(entry["disputed"]) for key, entry in content["structures"].items()}


def _made(
    tokenizer: Tokenizer, key: str, structure: Structure, definition: dict[str, Any]
) -> Proof:
    started = time.monotonic()
    try:
        proof = prove(tokenizer, structure, definition)
        result = f"{sum(b - a + 1 for a, b in proof.ranges):,} disputed characters, "
        result += f"{len(proof.markers):,} disputed strings"
    except FastTierError as error:
        proof = Proof(refusal=str(error))
        result = "they are not"
    kept = "kept for later runs" if _write(key, proof) else "not kept: the cache is not writable"
    seconds = time.monotonic() - started
    logger.info(
        "%s: compared the tokenizer tiers in %.0f s: equal ids, except for %s (%s)"
        if not proof.refusal
        else "%s: compared the tokenizer tiers in %.0f s, to see if their ids are equal: %s (%s)",
        *(tokenizer.path, seconds, result, kept),
    )
    return proof


def _scanned(structure: Structure) -> Ranges:
    """The disputed code points of a structure, from the cache or from a scan."""
    key = proof_cache.hashed("structure", structure.key, PROOF_VERSION, library_versions())
    found = _read(key)
    if found is None:
        logger.info("comparing the tokenizer tiers for all of Unicode, which takes about a minute")
        try:
            found = Proof(scan_structure(structure))
        except FastTierError as error:
            found = Proof(refusal=str(error))
        _write(key, found)
    if found.refusal:
        raise FastTierError(found.refusal)
    return found.ranges


def _cache_key(identity: str) -> str:
    return proof_cache.hashed("tokenizer", identity, PROOF_VERSION, library_versions())


def _read(key: str) -> Proof | None:
    """A proof in the cache. None: there is none, or it is damaged."""
    found = proof_cache.read(key)
    try:
        return (
            None
            if found is None
            else Proof(
                ranges=_ranges(found["ranges"]),
                markers=tuple(map(str, found["markers"])),
                reads_symbols=bool(found["reads_symbols"]),
                refusal=str(found["refusal"]),
                is_refuted=bool(found.get("is_refuted")),
            )
        )
    except (KeyError, TypeError, ValueError):
        return None


def _write(key: str, proof: Proof) -> bool:
    return proof_cache.write(
        key,
        {
            "ranges": [list(pair) for pair in proof.ranges],
            "markers": list(proof.markers),
            "reads_symbols": proof.reads_symbols,
            "refusal": proof.refusal,
            "is_refuted": proof.is_refuted,
            "libraries": library_versions(),
        },
    )


def _ranges(pairs: Iterable[Iterable[int]]) -> Ranges:
    return tuple((int(first), int(last)) for first, last in pairs)
