"""Texts on which a proof compares the tiers for one tokenizer."""

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import orjson

from blendtitan.tokenizers.base import Tokenizer, read_bytes

LONG = 1 << 16
"""Characters of the longest texts: beyond every buffer and cache, but encoded in milliseconds."""


# Words, scripts, white space and symbols of every kind, contexts of a symbol ``@``, and the first
# code points of many scripts.
@cache
def _data() -> Any:
    return orjson.loads(read_bytes(Path(__file__).with_suffix(".json")))


_LONG = (
    "a" * LONG,
    "1" * 5000,
    "=" * 5000,
    "\u6f22" * 5000,
    "\U0001f600" * 2000,
    "\u0301" * 2000,
    " " * 5000 + "x",
    "\n" * 5000,
    " \n" * 2000,
    "ab" * 5000 + " " + "Ab1" * 3000,
)

_ALL_PAIRS = 64
_LONGEST_RUN = 300  # of spaces; many vocabularies hold such runs as pieces


def vocabulary_texts(
    tokenizer: Tokenizer, symbols: list[str], sample_texts: int, seed: int = 0
) -> Iterator[str]:
    """All texts on which the tiers are compared for one tokenizer."""
    # Prose and code that every installation of Python has.
    from pydoc_data.topics import topics

    decoded = (tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    pieces = [piece for piece in dict.fromkeys(decoded) if piece and "\ufffd" not in piece]
    yield from hard_texts(symbols)
    yield from symbol_texts(symbols)
    for piece in pieces:
        yield from (piece, f"a{piece}", f" {piece}{piece}.")
    for length in range(1, _LONGEST_RUN + 1):
        run = " " * length
        yield from (run, f"a{run}b", f"{run}x\n{run}", f".{run}\n")
    yield from topics.values()
    yield from random_texts(sample_texts, pieces=pieces, symbols=symbols, seed=seed)


def hard_texts(symbols: Iterable[str]) -> Iterator[str]:
    """Every kind of text for which encoders are known to differ, or could, with these symbols."""
    yield from (*_data()["texts"], *_LONG)
    for space in _data()["spaces"]:
        yield from (space, f"a{space}b", f"{space}a", f"a{space}", f".{space}1{space}\n{space}")
    spellings = dict.fromkeys((*_data()["control_like"], *symbols))
    for spelling in spellings:
        yield from (spelling, f"a{spelling}b", f" {spelling} {spelling}\n")
    yield "".join(spellings)
    # Long words of mixed characters: base64 and minified text have no spaces.
    yield "".join(chr(33 + at * at % 94) for at in range(LONG))
    yield from (chr(code) for code in range(0x250))


def symbol_texts(symbols: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Every symbol and its fragments in every kind of context, and beside every other."""
    for symbol in symbols:
        for spelling in (symbol, symbol[:-1], symbol[1:], symbol[: len(symbol) // 2]):
            if spelling:
                yield from (place.replace("@", spelling) for place in _data()["places"])
    if len(symbols) <= _ALL_PAIRS:
        pairs: Iterable[tuple[str, str]] = product(symbols, symbols)
    else:
        rng = random.Random(seed)
        pairs = ((rng.choice(symbols), rng.choice(symbols)) for _ in range(_ALL_PAIRS**2))
    for first, second in pairs:
        yield from (f"{first}{second}", f"{first} {second}", f"{first[:-1]}{second}{first[1:]}")


def random_texts(
    count: int, *, pieces: Sequence[str], symbols: Sequence[str], seed: int
) -> Iterator[str]:
    """Texts of mixed scripts, spaces, long words, emoji, marks, pieces and parts of symbols."""
    rng = random.Random(seed)
    fragments = [s[a:b] for s in symbols for a, b in ((0, None), (0, -1), (1, None)) if s[a:b]]
    sources = (
        lambda: rng.choice(pieces or ["a"]),
        lambda: "".join(rng.choices(pieces or ["a"], k=3)),
        lambda: _script_run(rng),
        lambda: rng.choice(_data()["space_characters"]) * rng.choice((1, 1, 2, 3, 17)),
        lambda: "".join(rng.choices(_data()["emoji"], k=3)),
        lambda: "".join(rng.choices(_data()["marks"], k=rng.choice((1, 2, 5)))),
        lambda: "".join(rng.choices("0123456789.,'-_/:()[]{}<>|!?#@^*\"\\", k=4)),
        lambda: chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))),
        lambda: rng.choice(fragments or ["<s>"]),
        lambda: rng.choice(("'s", "'LL", "don't", "\r\n", " \n", "CamelCase", "\u2019re", "  x")),
    )
    for _ in range(count):
        long = rng.random() < 0.01
        yield "".join(rng.choice(sources)() for _ in range(300 if long else rng.randrange(1, 14)))


def _script_run(rng: random.Random) -> str:
    start = rng.choice(_data()["starts"])
    length = 400 if rng.random() < 0.002 else rng.randrange(1, 9)
    return "".join(chr(start + rng.randrange(64)) for _ in range(length))
