"""The part of a proof that holds for every tokenizer of one structure.

Patterns cut text by the kinds of characters. So the tiers cut all texts alike if they agree on
the kind of every code point, and on every short sequence of kinds. The first is checked with each
code point beside the characters that reveal its kind, the second with one character of each kind.
Normalisers also reorder and compose marks, which has texts of its own. They come from Python's
Unicode tables; characters that these do not contain are disputed where text is normalised.

With the vocabulary of a real tokenizer, most differences in how two libraries cut text are
invisible, because the pieces on both sides would not have been merged anyway. The comparison uses
*probes* instead: tokenizers of the same structure in whose vocabulary every pair of neighbouring
bytes is a piece, so that a cut between them always changes the ids.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, filterfalse, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from blendtitan.errors import FastTierError
from blendtitan.tokenizers.base import Tokenizer
from blendtitan.tokenizers.fast import (
    DisputedTexts,
    FastEncoder,
    Ranges,
    check_texts,
    differing_texts,
    ranges_of,
)
from blendtitan.tokenizers.hf import HF_FILE, HFTokenizer
from blendtitan.tokenizers.sp import SP_FILE, SPTokenizer
from blendtitan.tokenizers.structure import META_SPACE, Structure, fast_definition, probe_model

MAX_DISPUTED = 50_000
"""Most disputed code points that different Unicode versions can explain."""

CONTEXTS = "a@a A@A @Aa x'@y 1@1 @ ^@^n !@@'s\n@\n"
"""Neighbours of a code point, ``@``, that reveal all kinds which patterns distinguish."""

_MARKS = "a\u0323@\u0301 a@\u0301 a@\u0323 \u1100@\u11a8 @\u0301\u0323 "
"""These also distinguish marks of each class, which decides their order, from other characters."""

_SHORT = "a@n@^n "
_SHORTEST = "a@^n "

REPRESENTATIVES = "abABls1 9\u2581^!'./\n\t\u00e9\u0301\u6f22\u00a0"
"""A character of each kind that patterns distinguish."""

_UNIFORM = (range(0x3400, 0x4DC0), range(0x4E00, 0xA000), range(0xAC00, 0xD7A4))
"""Ideographs and Hangul syllables of the basic plane."""

_SEQUENCE_LEN = 4
_MARKS_LEN = 3

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
"""Types of SentencePiece pieces."""


def scan_structure(structure: Structure) -> Ranges:
    """Code points on which the two tiers disagree, with any vocabulary.

    Raises:
        FastTierError: The tiers differ in more than that, so the fast one cannot be used.
    """
    has_marks = structure.composes_marks
    with _probe_tiers(structure) as probes:
        # Each probe reveals other cuts between two ASCII characters.
        disputed = set(_disputed_code_points(*probes[0], marks=has_marks))
        if has_marks:
            for text in differing_texts(*probes[0], _composed_texts()):
                disputed |= {ord(char) for char in text[1:]} - {0x301, 0x323}
        if min(disputed, default=128) < 128 or len(disputed) > MAX_DISPUTED:
            raise FastTierError(
                f"the two tiers treat {len(disputed):,} characters differently, among them "
                f"{chr(min(disputed))!r}."
            )
        if has_marks:
            # The decomposition of unassigned code points is unknown.
            disputed |= {code for code in _varied() if unicodedata.category(chr(code)) == "Cn"}
        is_disputed = DisputedTexts(ranges_of(disputed))
        for probe in probes:
            check_texts(*probe, _sequence_texts(is_disputed, marks=has_marks), is_disputed)
    return is_disputed.ranges


def _disputed_code_points(reference: Tokenizer, fast: FastEncoder, *, marks: bool) -> Iterator[int]:
    """Every code point for which the tiers' ids differ in one of its contexts."""
    contexts = CONTEXTS + _MARKS if marks else CONTEXTS
    suspects = chain(
        _suspects(reference, fast, _varied(), contexts, 8),
        _suspects(reference, fast, _uniform(), _SHORT + _MARKS if marks else _SHORT, 32),
        _suspects(reference, fast, _sparse(), _SHORTEST, 32),
        map(ord, differing_texts(reference, fast, map(chr, _varied()))),
    )
    for code in dict.fromkeys(suspects):
        alone = _in(contexts, code)
        if any(differing_texts(reference, fast, [alone, chr(code), *alone.split(" ")])):
            yield code


def _suspects(
    reference: Tokenizer, fast: FastEncoder, codes: Iterable[int], contexts: str, group_size: int
) -> Iterator[int]:
    """Code points of the groups that have a difference. Groups save most of the time."""
    every = list(codes)
    groups = [every[at : at + group_size] for at in range(0, len(every), group_size)]
    texts = ("".join(_in(contexts, code) for code in group) for group in groups)
    members = re.compile(r"[^\x00-\x7f]|[\x00-\x7f]")
    known = set(every)
    for text in differing_texts(reference, fast, texts):
        yield from known.intersection(map(ord, members.findall(text)))


def _in(contexts: str, code: int) -> str:
    return contexts.replace("@", chr(code))


def _varied() -> Iterator[int]:
    """Code points of the two planes that hold all scripts and symbols."""
    uniform = set(chain.from_iterable(_UNIFORM))
    return (code for code in chain(range(0xD800), range(0xE000, 0x20000)) if code not in uniform)


def _uniform() -> Iterator[int]:
    """Ideographs, Hangul syllables, tags, and the places between them."""
    return chain(*_UNIFORM, range(0x20000, 0x40000), range(0xE0000, 0xF0000))


def _sparse() -> Iterator[int]:
    """Planes without characters, and those for private use."""
    return chain(range(0x40000, 0xE0000), range(0xF0000, 0x110000))


def _composed_texts() -> Iterator[str]:
    """All characters that have marks, decomposed, also with their marks in another order."""
    for char in map(chr, range(0xC0, 0x30000)):
        parts = unicodedata.normalize("NFD", char)
        if parts != char:
            yield from (parts, parts[0] + parts[:0:-1])
            yield from (f"{parts}\u0301", f"{parts[0]}\u0323{parts[1:]}")


def _sequence_texts(is_disputed: Callable[[str], bool], *, marks: bool) -> Iterator[str]:
    """Every short sequence of kinds of characters, and every kind of sequence of marks.

    An undisputed mark represents its kind, so that no sequence is skipped as disputed.
    """
    yield from (_in(CONTEXTS, code) for code in range(128))
    yield from map("".join, product(REPRESENTATIVES, repeat=_SEQUENCE_LEN))
    if not marks:
        return
    yield from _composed_texts()
    by_class: dict[int, str] = {}
    for char in filterfalse(is_disputed, map(chr, range(0x300, 0x20000))):
        by_class.setdefault(unicodedata.combining(char), char)
    for sequence in product(by_class.values(), repeat=_MARKS_LEN):
        yield f"a{''.join(sequence)}b"


@contextmanager
def _probe_tiers(structure: Structure) -> Iterator[list[tuple[Tokenizer, FastEncoder]]]:
    """Both tiers of the probes of a structure."""
    with TemporaryDirectory() as folder:
        if structure.sp_model:
            probes = [_sp_probe(structure, Path(folder))]
        elif structure.definition["model"].get("byte_fallback"):
            vocabulary = _character_vocabulary(f"{structure.definition['model']['unk_token']}")
            probes = [_hf_probe(structure, Path(folder), *vocabulary)]
        else:
            probes = [
                _hf_probe(structure, Path(folder) / str(is_reversed), *_byte_pairs(is_reversed))
                for is_reversed in (False, True)
            ]
        yield [(probe, FastEncoder.of(fast_definition(probe))) for probe in probes]


def _sp_probe(structure: Structure, folder: Path) -> Tokenizer:
    """A probe that encodes text as bytes, which reveal every character that is normalised away."""
    pieces = {"<unk>": _UNKNOWN, "<s>": _CONTROL, "</s>": _CONTROL}
    pieces |= dict.fromkeys(map("<0x{:02X}>".format, range(256)), _BYTE)
    path = folder / SP_FILE
    path.write_bytes(probe_model(structure, pieces | {META_SPACE: _NORMAL}))
    return SPTokenizer(path)


def _hf_probe(
    structure: Structure, folder: Path, vocab: dict[str, int], merges: list[list[str]]
) -> Tokenizer:
    model: dict[str, Any] = structure.definition["model"] | {"vocab": vocab, "merges": merges}
    folder.mkdir(exist_ok=True)
    path = folder / HF_FILE
    path.write_bytes(orjson.dumps(structure.definition | {"model": model, "added_tokens": []}))
    return HFTokenizer(path)


def _byte_pairs(is_reversed: bool) -> tuple[dict[str, int], list[list[str]]]:
    """All bytes and all pairs of them; pairs that span two characters are merged first.

    Among pairs of ASCII characters, the order decides which cuts are seen, so there are two.
    """

    def rank(pair: tuple[int, int]) -> tuple[int, int]:
        left, right = pair
        at = left << 8 | right
        if left < 0x80 and right < 0x80:
            return 1, -at if is_reversed else at
        is_end, is_start = left < 0xC0, not 0x80 <= right < 0xC0
        return (0 if is_end and is_start else 2), at

    # The character that represents each byte in a byte-level vocabulary, as GPT-2 defined it.
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    letters = [chr(byte if byte in shown else next(hidden)) for byte in range(256)]
    pairs = sorted(product(range(256), range(256)), key=rank)
    merges = [[letters[left], letters[right]] for left, right in pairs]
    return {piece: at for at, piece in enumerate([*letters, *map("".join, merges)])}, merges


def _character_vocabulary(unknown: str) -> tuple[dict[str, int], list[list[str]]]:
    """Single bytes, and characters of each kind with all pairs of them."""
    merges = [[left, right] for left, right in product(REPRESENTATIVES, repeat=2)]
    pieces = [unknown, *map("<0x{:02X}>".format, range(256)), *REPRESENTATIVES]
    pieces += map("".join, merges)
    return {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}, merges
