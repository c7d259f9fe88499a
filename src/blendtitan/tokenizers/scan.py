"""The part of a proof that holds for every tokenizer of one structure.

Patterns cut text by the kinds of characters. So the tiers cut all texts alike when they agree on
the kind of every code point, and on every short sequence of kinds. The first is checked with each
code point beside the characters that reveal its kind, the second with one character of each kind.
Normalisers also reorder and compose marks, which has texts of its own. They come from Python's
tables of Unicode; characters that are not in these are disputed where text is normalised.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, filterfalse, product

from blendtitan.errors import FastTierError
from blendtitan.tokenizers.base import Tokenizer
from blendtitan.tokenizers.comparison import difference_in, differing_texts
from blendtitan.tokenizers.disputed import DisputedTexts, Ranges, ranges_of
from blendtitan.tokenizers.fast import FastEncoder
from blendtitan.tokenizers.probe import REPRESENTATIVES, probe_tiers
from blendtitan.tokenizers.structure import Structure

MAX_DISPUTED = 50_000
"""Code points beyond which the tiers are taken to differ in more than their Unicode version."""

CONTEXTS = "a@a A@A @Aa x'@y 1@1 @ ^@^n !@@'s\n@\n"
"""Neighbours of a code point, ``@``, that tell all kinds apart which patterns know."""

_MARKS = "a\u0323@\u0301 a@\u0301 a@\u0323 \u1100@\u11a8 @\u0301\u0323 "
"""Also tell marks of each class, which decides their order, from those of none."""

_SHORT = "a@n@^n "
_SHORTEST = "a@^n "

_UNIFORM = (range(0x3400, 0x4DC0), range(0x4E00, 0xA000), range(0xAC00, 0xD7A4))
"""Ideographs and Hangul syllables of the basic plane."""

_SEQUENCE_LEN = 4
_MARKS_LEN = 3


def scan_structure(structure: Structure) -> Ranges:
    """Code points on which the two tiers disagree, whatever the vocabulary.

    Raises:
        FastTierError: The tiers differ in more than that, so the fast one cannot be used.
    """
    has_marks = structure.composes_marks
    with probe_tiers(structure) as probes:
        # The probes differ in which cuts between two ASCII characters they show.
        disputed = set(disputed_code_points(*probes[0], marks=has_marks))
        if has_marks:
            disputed |= _disputed_marks(*probes[0])
        if min(disputed, default=128) < 128 or len(disputed) > MAX_DISPUTED:
            raise FastTierError(
                f"the two tiers treat {len(disputed):,} characters differently, among them "
                f"{chr(min(disputed))!r}."
            )
        if has_marks:
            disputed |= _unknown()
        is_disputed = DisputedTexts(ranges_of(disputed))
        for probe in probes:
            check_texts(*probe, sequence_texts(is_disputed, marks=has_marks), is_disputed)
    return is_disputed.ranges


def check_texts(
    reference: Tokenizer,
    fast: FastEncoder,
    texts: Iterable[str],
    is_disputed: Callable[[str], bool],
) -> int:
    """Check that both tiers give the same ids for all texts that are not disputed.

    Returns:
        The number of texts that were compared.

    Raises:
        FastTierError: They do not.
    """
    compared = 0

    def undisputed() -> Iterator[str]:
        nonlocal compared
        for text in texts:
            if not is_disputed(text):
                compared += 1
                yield text

    for text in differing_texts(reference, fast, undisputed()):
        raise FastTierError(difference_in(reference, fast, text))
    return compared


def disputed_code_points(reference: Tokenizer, fast: FastEncoder, *, marks: bool) -> Iterator[int]:
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


def _disputed_marks(reference: Tokenizer, fast: FastEncoder) -> set[int]:
    """Marks that only one of the tiers composes with what stands before them."""
    marks: set[int] = set()
    for text in differing_texts(reference, fast, _composed_texts()):
        marks |= {ord(char) for char in text[1:]} - {0x301, 0x323}
    return marks


def _unknown() -> set[int]:
    """Code points of which it is not known what they are composed of, or compose to."""
    return {code for code in _varied() if unicodedata.category(chr(code)) == "Cn"}


def _composed_texts() -> Iterator[str]:
    """All characters that have marks, decomposed, also with their marks in another order."""
    for char in map(chr, range(0xC0, 0x30000)):
        parts = unicodedata.normalize("NFD", char)
        if parts != char:
            yield from (parts, parts[0] + parts[:0:-1])
            yield from (f"{parts}\u0301", f"{parts[0]}\u0323{parts[1:]}")


def sequence_texts(is_disputed: Callable[[str], bool], *, marks: bool) -> Iterator[str]:
    """Every short sequence of kinds of characters, and every kind of sequence of marks.

    An undisputed mark stands for its kind, so that no sequence is left out as disputed.
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
