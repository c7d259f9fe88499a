"""Texts on which a proof compares the tiers for one tokenizer: its pieces, symbols, and samples."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from blendtitan.tokenizers.base import Tokenizer

_BATCH_IDS = 4096
_ALL_PAIRS = 64
_LONGEST_RUN = 300

_PLACES = (
    "@", "a@b", " @ ", "  @  ", "\n@\n", "\t@", "1@1", ".@.", "<@>", "@@", "@ @", "@\n@",
    "\u00e9@\u00e9", "\u6f22@\u6f22", "@\u0301", "\u2581@\u2581", "'@s", "A@", "the @ and@the",
    "\U0001f600@", "\x00@",
)  # fmt: skip
"""Neighbourhoods of a symbol, ``@``: every kind of character on either side."""

_EMOJI = "\U0001f600\U0001f468\u200d\U0001f469\ufe0f\U0001f1e9\U0001f1ea\U0001f3fd\u2764\u20e3"
_MARKS = "\u0301\u0323\u0308\u064e\u0651\u093f\u093e\u0bcd\u3099\u200d\ufe0f"
_SPACES = " \n\t\r\u00a0\u3000\u2003\u2028\v\f"
_STARTS = (
    0x41, 0xC0, 0x100, 0x370, 0x400, 0x531, 0x5D0, 0x620, 0x904, 0x985, 0xB85, 0xE01, 0xF40, 0x10A0,
    0x1100, 0x1200, 0x13A0, 0x1780, 0x1E00, 0x2010, 0x2190, 0x2200, 0x2460, 0x2500, 0x3041, 0x30A1,
    0x4E00, 0x6000, 0xAC00, 0xC000, 0xFB50, 0xFF01, 0x10330, 0x1D400, 0x1F300, 0x20000,
)  # fmt: skip
"""Where blocks of many scripts and kinds of symbols begin."""


def piece_texts(pieces: Iterable[str]) -> Iterator[str]:
    """Every piece of a vocabulary as text, alone and with neighbours."""
    for piece in pieces:
        yield from (piece, f"a{piece}", f" {piece}{piece}.")


def run_texts() -> Iterator[str]:
    """Runs of spaces of every length, which many vocabularies hold as pieces."""
    for length in range(1, _LONGEST_RUN + 1):
        run = " " * length
        yield from (run, f"a{run}b", f"{run}x\n{run}", f".{run}\n")


def vocabulary_pieces(tokenizer: Tokenizer) -> list[str]:
    """The texts of all ids that have one of their own."""
    pieces = (tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    return [piece for piece in dict.fromkeys(pieces) if piece and "\ufffd" not in piece]


def symbol_texts(symbols: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Every symbol and its fragments in every kind of neighbourhood, and beside every other."""
    for symbol in symbols:
        for spelling in (symbol, symbol[:-1], symbol[1:], symbol[: len(symbol) // 2]):
            if spelling:
                yield from (place.replace("@", spelling) for place in _PLACES)
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
        lambda: rng.choice(_SPACES) * rng.choice((1, 1, 2, 3, 17)),
        lambda: "".join(rng.choices(_EMOJI, k=3)),
        lambda: "".join(rng.choices(_MARKS, k=rng.choice((1, 2, 5)))),
        lambda: "".join(rng.choices("0123456789.,'-_/:()[]{}<>|!?#@^*\"\\", k=4)),
        lambda: chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))),
        lambda: rng.choice(fragments or ["<s>"]),
        lambda: rng.choice(("'s", "'LL", "don't", "\r\n", " \n", "CamelCase", "\u2019re", "  x")),
    )
    for _ in range(count):
        long = rng.random() < 0.01
        yield "".join(rng.choice(sources)() for _ in range(300 if long else rng.randrange(1, 14)))


def _script_run(rng: random.Random) -> str:
    start = rng.choice(_STARTS)
    length = 400 if rng.random() < 0.002 else rng.randrange(1, 9)
    return "".join(chr(start + rng.randrange(64)) for _ in range(length))
