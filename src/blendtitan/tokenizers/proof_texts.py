"""Texts on which a proof compares the tiers for one tokenizer."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from blendtitan.tokenizers.base import Tokenizer

LONG = 1 << 16
"""Characters of the longest texts: beyond every buffer and cache, but encoded in milliseconds."""

_HARD_SPACES = (
    " ",
    "  ",
    "   ",
    " " * 7,
    " " * 16,
    " " * 100,
    "\t",
    "\t\t",
    "\n",
    "\n\n\n",
    "\r\n",
)
_ODD_SPACES = ("\r", "\v", "\f", "\x1c", "\x85", "\xa0", "\u2003", "\u2028", "\u3000", "\ufeff")

_CONTROL_LIKE = ("<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "[INST]", "[CLS]", "<0x0A>")

_WORDS = (
    "",
    "a",
    "The quick brown fox can't jump; it's DON'T, we'LL, I\u2019m, o\u2019clock.",
    "camelCase snake_case SCREAMING_CASE kebab-case x1y2z3 \u00dcber \u01c5 \u0130stanbul",
    "0 1 12 123 1234 12345678901234567890 1,234,567.89 1e-9 0xFF \u0663\u0664 \u00bd \u2167 \u00b2",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org C:\\dir\\file.txt ../a",
    "!!! ??? ... --- === /// #$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \u2026\u201c\u201d\u2014 \u00a7\u20ac",
    "def f(x):\n\tif x  >=  1:\n\t\treturn x ** 2  # note\n\n\n    \n",
    '{"key": [1, 2.5, null], "text": "a\\nb\\u00e9"}\r\n\r\n<div class=\'x\'> </div>',
    # White space in vocabularies of SentencePiece and byte-level BPE.
    "\u2581 \u2581\u2581 a\u2581b \u0120a \u010a",
)

_SCRIPTS = (
    (
        "\u6f22\u5b57\u3068\u304b\u306a\u3001\u30ab\u30bf\u30ab\u30ca\u3002 \uff21\uff22\uff11 "
        "\U00020000\U0002a6d6"
    ),
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \uff76\uff9e",
    (
        "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea "
        "\u200fmixed\u200e \u202bright\u202c \u0644\u0651\u064e"
    ),
    (
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22\u0e20\u0e32\u0e29\u0e32 "
        "\u0f56\u0f7c\u0f51 \u0ba4\u0bae\u0bbf\u0bb4\u0bcd"
    ),
    (
        "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 "
        "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03c3\u03c2 "
        "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u13e3\u13b3\u13a9"
    ),
    (
        "\u00e9 e\u0301 \u1e9b\u0323 \ufb01 \u212b \u00df \u1e9e \u01c6 "
        "Z\u0351\u036b\u0343a\u0334\u0315l\u0361g\u0321o\u0300"
    ),
    (
        "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
        "\U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3 \U0001f44d\U0001f3fd"
    ),
    # Letters and symbols that are new in Unicode 14 to 16, beside symbols that would join a symbol.
    "\u0870^n \U00011f04^n \U0002ebf0^n \U00010d4a^n \u20c0/O \U0001fa75/O",
    "a\u200bb\u200cc\u200dd\u2060e\u00adf \u180e \ufffc \ufffd",
    "\x00 \x01\x02\x07\x08\x0e\x1b\x1f\x7f\x80\x9f a\x00b \ue000 \uf8ff \uffff \U0010ffff \ufdd0",
)

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

_PLACES = (
    "@", "a@b", " @ ", "  @  ", "\n@\n", "\t@", "1@1", ".@.", "<@>", "@@", "@ @", "@\n@",
    "\u00e9@\u00e9", "\u6f22@\u6f22", "@\u0301", "\u2581@\u2581", "'@s", "A@", "the @ and@the",
    "\U0001f600@", "\x00@",
)  # fmt: skip
"""Contexts of a symbol, ``@``, with every kind of character on either side."""

_EMOJI = "\U0001f600\U0001f468\u200d\U0001f469\ufe0f\U0001f1e9\U0001f1ea\U0001f3fd\u2764\u20e3"
_MARKS = "\u0301\u0323\u0308\u064e\u0651\u093f\u093e\u0bcd\u3099\u200d\ufe0f"
_SPACES = " \n\t\r\u00a0\u3000\u2003\u2028\v\f"
_STARTS = (
    0x41, 0xC0, 0x100, 0x370, 0x400, 0x531, 0x5D0, 0x620, 0x904, 0x985, 0xB85, 0xE01, 0xF40, 0x10A0,
    0x1100, 0x1200, 0x13A0, 0x1780, 0x1E00, 0x2010, 0x2190, 0x2200, 0x2460, 0x2500, 0x3041, 0x30A1,
    0x4E00, 0x6000, 0xAC00, 0xC000, 0xFB50, 0xFF01, 0x10330, 0x1D400, 0x1F300, 0x20000,
)  # fmt: skip
"""First code points of many scripts and kinds of symbols."""


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
    """Every kind of text for which encoders are known to differ, or could.

    Args:
        symbols: Spellings that mean something to the tokenizer: ``Tokenizer.symbols``.
    """
    yield from (*_WORDS, *_SCRIPTS, *_LONG)
    for space in (*_HARD_SPACES, *_ODD_SPACES):
        yield from (space, f"a{space}b", f"{space}a", f"a{space}", f".{space}1{space}\n{space}")
    spellings = dict.fromkeys((*_CONTROL_LIKE, *symbols))
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
