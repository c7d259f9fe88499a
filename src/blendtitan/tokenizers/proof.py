"""The proof that both tiers give the same ids for a tokenizer, except for disputed texts.

It has two parts. ``scan`` compares how the tiers cut and normalise text, which depends only on
the structure of the tokenizer. ``prove_vocabulary`` compares the effects of its pieces and
symbols. Structures that passed the first part with the installed libraries are listed in
``proven.json``. Other proofs are made once, and kept in the user's cache. Wherever the fast tier
cannot be used, a ``FastTierError`` gives the reason.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import orjson

from blendtitan.errors import FastTierError
from blendtitan.files import read_file
from blendtitan.tokenizers.base import Tokenizer, read_bytes
from blendtitan.tokenizers.elsewhere import cache_folder
from blendtitan.tokenizers.fast import (
    DisputedTexts,
    FastEncoder,
    Ranges,
    check_texts,
    read_definition,
)
from blendtitan.tokenizers.proof_texts import symbol_texts, vocabulary_texts
from blendtitan.tokenizers.scan import scan_structure
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
"""Version of the scope of a proof. Ids of the fast tier are trusted with this version only."""

SAMPLE_TEXTS = 50_000
"""Random texts that a proof compares."""

LISTED_BYTES = 50_000_000
"""Bytes of text per process from which a proof of a listed structure saves time."""

UNLISTED_BYTES = 300_000_000
"""The same for a proof that has to compare all code points first."""

_WAIT_SECONDS = 180
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Proof:
    """The texts for which the fast tier gives the ids of the reference."""

    ranges: Ranges = ()
    """Code points: texts that contain one are disputed."""

    markers: tuple[str, ...] = ()
    """Strings: texts that contain one are disputed."""

    reads_symbols: bool = False
    """Whether the fast tier looks for added tokens itself."""

    refusal: str = ""
    """The reason why the fast tier cannot be used at all; empty if it can."""

    is_refuted: bool = False
    """Whether a run showed that an earlier, positive proof was wrong."""

    @property
    def disputed(self) -> DisputedTexts:
        """The test for texts that only the reference may encode."""
        return DisputedTexts(self.ranges, self.markers)


def proof_of(tokenizer: Tokenizer, identity: str, *, text_bytes: int | None = None) -> Proof | None:
    """The proof for a tokenizer, from the cache or made now.

    ``identity`` is a hash of everything that its ids depend on. None: there is no proof yet, and
    making one takes longer than it saves for ``text_bytes`` of text in each process.

    Raises:
        FastTierError: The tiers differ, or the fast one does not support the tokenizer.
    """
    definition = read_definition(tokenizer)
    key = _key("tokenizer", identity)
    proof = read_proof(key)
    if proof is None:
        structure = structure_of(tokenizer, definition)
        is_listed = structure.key in listed_structures()
        worthwhile = LISTED_BYTES if is_listed else UNLISTED_BYTES
        if text_bytes is not None and text_bytes < worthwhile:
            return None
        with _locked(key):
            proof = read_proof(key) or _make_proof(tokenizer, key, structure, definition)
    if proof.refusal:
        raise FastTierError(proof.refusal)
    return proof


def refute(identity: str, reason: str) -> None:
    """Stop using the fast tier for a tokenizer, after a difference in a run."""
    key = _key("tokenizer", identity)
    known = read_proof(key)
    if known is None or not known.is_refuted:
        refusal = f"{reason} (To try it again, delete {cache_path(key)}.)"
        write_proof(key, Proof(refusal=refusal, is_refuted=True))


def check_not_refuted(identity: str) -> None:
    """Raise a ``FastTierError`` if a run has shown the proof for a tokenizer to be wrong."""
    known = read_proof(_key("tokenizer", identity))
    if known is not None and known.is_refuted:
        raise FastTierError(known.refusal)


def prove(tokenizer: Tokenizer, structure: Structure, definition: dict[str, Any]) -> Proof:
    """Compare the tiers on everything that a proof covers."""
    ranges = listed_structures().get(structure.key)
    if ranges is None:
        ranges = _scan(structure)
    return prove_vocabulary(tokenizer, ranges, definition, sample_texts=SAMPLE_TEXTS)


def prove_vocabulary(
    tokenizer: Tokenizer, ranges: Ranges, definition: dict[str, Any], *, sample_texts: int
) -> Proof:
    """Compare the tiers on the pieces and symbols of one tokenizer."""
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


@cache
def listed_structures() -> dict[str, Ranges]:
    """Disputed code points of the structures that were proven with the installed libraries."""
    content = orjson.loads(read_bytes(Path(__file__).with_name("proven.json")))
    if (content["proof"], content["libraries"]) != (PROOF_VERSION, library_versions()):
        return {}
    return {key: _ranges(entry["disputed"]) for key, entry in content["structures"].items()}


def _make_proof(
    tokenizer: Tokenizer, key: str, structure: Structure, definition: dict[str, Any]
) -> Proof:
    started = time.monotonic()
    try:
        proof = prove(tokenizer, structure, definition)
        num_characters = sum(last - first + 1 for first, last in proof.ranges)
        result = (
            f"equal ids, except for {num_characters:,} disputed characters, "
            f"{len(proof.markers):,} disputed strings"
        )
    except FastTierError as error:
        proof, result = Proof(refusal=str(error)), "their ids differ"
    is_kept = write_proof(key, proof)
    kept = "kept for later runs" if is_kept else "not kept: the cache is not writable"
    logger.info(
        "%s: compared the tokenizer tiers in %.0f s: %s (%s)",
        *(tokenizer.path, time.monotonic() - started, result, kept),
    )
    return proof


def _scan(structure: Structure) -> Ranges:
    """The disputed code points of a structure, from the cache or from a scan."""
    key = _key("structure", structure.key)
    found = read_proof(key)
    if found is None:
        logger.info("comparing the tokenizer tiers for all of Unicode, which takes about a minute")
        try:
            found = Proof(scan_structure(structure))
        except FastTierError as error:
            found = Proof(refusal=str(error))
        write_proof(key, found)
    if found.refusal:
        raise FastTierError(found.refusal)
    return found.ranges


def cache_path(key: str) -> Path:
    """The file of a proof, below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return cache_folder() / "tokenizer-proofs" / f"{key[:40]}.json"


def _key(kind: str, identity: str) -> str:
    return _hashed([kind, identity, PROOF_VERSION, library_versions()])


def _hashed(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def read_proof(key: str) -> Proof | None:
    """A proof in the cache. None: it is missing or damaged."""
    try:
        found = orjson.loads(read_file(cache_path(key)))
        value = found["value"]
        if found["key"] == key and found["digest"] == _hashed([value]):
            return Proof(
                ranges=_ranges(value["ranges"]),
                markers=tuple(map(str, value["markers"])),
                reads_symbols=bool(value["reads_symbols"]),
                refusal=str(value["refusal"]),
                is_refuted=bool(value.get("is_refuted")),
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    logger.warning("%s: is damaged, so the proof is made again", cache_path(key))
    return None


def write_proof(key: str, proof: Proof) -> bool:
    """Store a proof in the cache; return whether that was possible."""
    path = cache_path(key)
    value = asdict(proof) | {"libraries": library_versions()}
    content = orjson.dumps({"key": key, "digest": _hashed([value]), "value": value})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError:
        return False
    return True


@contextmanager
def _locked(key: str) -> Iterator[None]:
    """Wait while another process makes a proof: for minutes at most, where files have locks."""
    path = cache_path(key).with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError:
        yield
        return
    with file:
        deadline = time.monotonic() + _WAIT_SECONDS
        # Some network file systems have no locks. Then each process makes the proof.
        with suppress(OSError):
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_POLL_SECONDS)
        yield
    with suppress(OSError):
        path.unlink()


def _ranges(pairs: Iterable[Iterable[int]]) -> Ranges:
    return tuple((int(first), int(last)) for first, last in pairs)
