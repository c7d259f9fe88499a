"""The fast tier: gigatoken's encoder, and its comparison with the reference.

Only gigatoken's encoder of one text is used. It returns an array and leaves the cores to our
worker processes; its encoder of many texts needs a library that takes 0.2 s to import, and its
file reader drops unreadable text. If gigatoken is missing or fails, or does not support a
tokenizer, the functions here raise a ``FastTierError``.
"""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from os.path import commonprefix
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from blendtitan.errors import FastTierError, requires_extra
from blendtitan.tokenizers.base import Tokenizer, concatenated
from blendtitan.tokenizers.structure import fast_definition, read_symbols

CACHE_BYTES = 48 << 20
"""Growth of the process's memory while encoding after which the cache of words is dropped.

Real text adds up to one byte for each of its own; text that never repeats a word, up to 20.
"""

_STATM = Path("/proc/self/statm")

_BATCH_CHARS = 1 << 19
_EDGE_CHARS = 64
_CONTEXT_IDS = 8

_MAX_SECONDS = 4
_MAX_HINTS = 16

Ranges = tuple[tuple[int, int], ...]
"""Code points as pairs of first and last, in ascending order."""


class FastEncoder:
    """Texts to ids, with a backend that is rebuilt when its cache has grown too large."""

    def __init__(self, build_backend: Callable[[], Any]) -> None:
        self._build_backend = build_backend
        self._backend: Any = None
        self._renew()

    @classmethod
    def load(cls, tokenizer: Tokenizer, *, reads_symbols: bool = True) -> Self:
        """Gigatoken's encoder for the file of a tokenizer: see ``of``."""
        return cls.of(read_definition(tokenizer), reads_symbols=reads_symbols)

    @classmethod
    def of(cls, definition: Mapping[str, Any], *, reads_symbols: bool = True) -> Self:
        """Gigatoken's encoder for the content of a ``tokenizer.json``, without its control symbols.

        ``reads_symbols`` says whether gigatoken looks for the other added tokens.
        """
        symbols = read_symbols(definition) if reads_symbols else []
        content = orjson.dumps({**definition, "added_tokens": symbols})
        with _guarded("gigatoken cannot load it"):
            from gigatoken.gigatoken_rs import load_hf_json

            return cls(partial(load_hf_json, content))

    def encode_texts(self, texts: list[str]) -> list[NDArray[np.integer]]:
        """Ids of each text."""
        with _guarded("gigatoken failed"):
            before = _resident_bytes()
            encoded: list[NDArray[np.integer]] = [self._backend.encode(text) for text in texts]
            # If the system does not say, assume that the cache grows as the text does.
            grown = sum(map(len, texts)) if before is None else (_resident_bytes() or 0) - before
            self._cache_bytes += max(0, grown)
            if self._cache_bytes > CACHE_BYTES:
                self._renew()
            return encoded

    def _renew(self) -> None:
        # Drop the old backend first, so that the two never coexist.
        self._backend = None
        return_freed_memory()
        self._backend = self._build_backend()
        self._cache_bytes = 0


def read_definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ``tokenizer.json`` that gigatoken reads for a tokenizer."""
    with requires_extra("fast", "the fast tier", error=FastTierError):
        import gigatoken.gigatoken_rs  # noqa: F401
    with _guarded("gigatoken cannot load it"):
        return fast_definition(tokenizer)


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError, FastTierError):
        raise
    # A panic of a Rust library is a BaseException of no importable type.
    except BaseException as error:
        reason = str(error).partition("\n")[0]
        raise FastTierError(f"{what} ({type(error).__name__}: {reason}).") from error


def _resident_bytes() -> int | None:
    """Memory of this process. None: the system does not say, as on macOS."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Return freed memory to the system; glibc would keep much of it."""
    with suppress(AttributeError):  # Other C libraries do it by themselves.
        ctypes.CDLL(None).malloc_trim(0)


def differing_texts(reference: Tokenizer, fast: FastEncoder, texts: Iterable[str]) -> Iterator[str]:
    """The texts for which the fast tier gives other ids than the reference."""
    for batch in _batches(texts):
        encoded = fast.encode_texts(batch)
        ids, lens = reference.encode_batch(batch)
        found_ids, found_lens = concatenated(encoded)
        if np.array_equal(lens, found_lens) and np.array_equal(ids, found_ids):
            continue
        for text, found, expected in zip(batch, encoded, split(ids, lens), strict=True):
            if not np.array_equal(found, expected):
                yield text


def check_texts(
    reference: Tokenizer,
    fast: FastEncoder,
    texts: Iterable[str],
    is_disputed: Callable[[str], bool],
) -> None:
    """Raise a ``FastTierError`` if the tiers differ for a text that is not disputed."""
    undisputed = (text for text in texts if not is_disputed(text))
    for text in differing_texts(reference, fast, undisputed):
        found, expected = fast.encode_texts([text])[0], reference.encode_batch([text])[0]
        raise FastTierError(difference(text, found, expected))


def split(ids: NDArray[np.int32], lens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """The ids of each text. NumPy would split no ids of no texts into one piece."""
    return np.split(ids, np.cumsum(lens)[:-1]) if len(lens) else []


def first_difference(found: NDArray[np.integer], expected: NDArray[np.integer]) -> int:
    """Index of the first id that differs; the shorter length if one begins with the other."""
    shared = min(len(found), len(expected))
    differs = np.flatnonzero(found[:shared] != expected[:shared])
    return int(differs[0]) if len(differs) else shared


def difference(text: str, found: NDArray[np.integer], expected: NDArray[np.integer]) -> str:
    """A sentence about the first difference in the ids of a text."""
    at = first_difference(found, expected)
    window = slice(at, at + _CONTEXT_IDS)
    return (
        f"gigatoken gives other ids than the reference for the text {text[:_EDGE_CHARS]!r} of "
        f"{len(text):,} characters: from id number {at:,} on {found[window].tolist()}, expected "
        f"{expected[window].tolist()}."
    )


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text) + 1
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


class DisputedTexts:
    """Tests whether a text contains anything on which the tiers may disagree.

    Every text for the fast tier is tested, so each test begins with a cheap test
    that rules out nearly every text.
    """

    def __init__(self, ranges: Ranges = (), markers: tuple[str, ...] = ()) -> None:
        self.ranges = ranges
        """Code points that the tiers may treat differently."""
        self.markers = markers
        """Every text with a symbol that only the reference reads contains one of these strings."""
        self._leads = _leads(ranges)
        self._is_disputed = _table(ranges)
        self._hints = _hints(markers)
        self._markers = re.compile("|".join(map(re.escape, markers))) if markers else None

    def __call__(self, text: str) -> bool:
        """Whether a text is disputed."""
        return self._has_marker(text) or self._has_code_point(text)

    def _has_marker(self, text: str) -> bool:
        # Searching for one character is many times faster than for several.
        if self._markers is None or not any(
            char in text and any(hint in text for hint in hints)
            for char, hints in self._hints.items()
        ):
            return False
        return bool(self._markers.search(text))

    def _has_code_point(self, text: str) -> bool:
        if not self.ranges or text.isascii():
            return False
        # Searching for a few bytes is many times faster than looking at all characters.
        content = text.encode(errors="surrogatepass")
        if not any(
            lead in content and any(start in content for start in starts)
            for lead, starts in self._leads.items()
        ):
            return False
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return bool(self._is_disputed[codes].any())


def ranges_of(codes: Iterable[int]) -> Ranges:
    """Code points as ranges."""
    ranges: list[tuple[int, int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return tuple(ranges)


@cache
def _table(ranges: Ranges) -> NDArray[np.bool_]:
    """Whether each code point is in one of the ranges. One entry per code point."""
    table = np.zeros(sys.maxunicode + 1 if ranges else 0, np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return table


def _leads(ranges: Ranges) -> dict[bytes, set[bytes]]:
    """The first byte of the code points in UTF-8, each with the first two bytes if they are few."""
    leads: dict[bytes, set[bytes]] = {}
    for first, last in ranges:
        for code in (*range(first, last, 64), last):
            start = chr(code).encode(errors="surrogatepass")[:2]
            leads.setdefault(start[:1], set()).add(start)
    return {
        lead: found if len(found) <= _MAX_SECONDS else {lead}
        for lead, found in sorted(leads.items())
    }


def _hints(markers: Iterable[str]) -> dict[str, list[str]]:
    """A few strings that together begin every marker, by a character that they contain."""
    hints: list[str] = []
    for length in (3, 2, 1):
        groups: dict[str, list[str]] = {}
        for marker in markers:
            groups.setdefault(marker[:length], []).append(marker)
        hints = [commonprefix(group) for group in groups.values()]
        if len(hints) <= _MAX_HINTS:
            break
    by_char: dict[str, list[str]] = {}
    for hint in hints:
        # Letters and digits are in every text.
        by_char.setdefault(min(hint, key=str.isalnum), []).append(hint)
    return by_char
