"""Texts that only the reference tier may encode."""

import re
import sys
from collections.abc import Iterable
from functools import cache
from os.path import commonprefix

import numpy as np
from numpy.typing import NDArray

Ranges = tuple[tuple[int, int], ...]
"""Code points as pairs of first and last, in ascending order."""


_MAX_SECONDS = 4
_MAX_HINTS = 16


class DisputedTexts:
    """Whether a text contains anything on which the tiers are known to disagree.

    All text passes through here on its way to the fast tier, so each test begins with a cheap one
    that rules out nearly every text.
    """

    def __init__(self, ranges: Ranges = (), markers: tuple[str, ...] = ()) -> None:
        self.ranges = ranges
        """Code points that the tiers may treat differently."""
        self.markers = markers
        """Strings one of which is in every text that holds a symbol only the reference reads."""
        self._leads = _leads(ranges)
        self._is_disputed = _table(ranges)
        self._hints = _hints(markers)
        self._markers = re.compile("|".join(map(re.escape, markers))) if markers else None

    def __call__(self, text: str) -> bool:
        """Whether a text is disputed."""
        return self._has_marker(text) or self._has_code_point(text)

    def _has_marker(self, text: str) -> bool:
        # Looking for one character is many times faster than for several.
        if self._markers is None or not any(
            char in text and any(hint in text for hint in hints)
            for char, hints in self._hints.items()
        ):
            return False
        return bool(self._markers.search(text))

    def _has_code_point(self, text: str) -> bool:
        if not self.ranges or text.isascii():
            return False
        # Looking for a few bytes is many times faster than looking at all characters.
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
    """For each code point, whether it is in one of the ranges."""
    table = np.zeros(sys.maxunicode + 1 if ranges else 0, np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return table


def _leads(ranges: Ranges) -> dict[bytes, set[bytes]]:
    """How the code points begin in UTF-8: first bytes, each with the first two where few follow."""
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
    """A few strings one of which begins every marker, by a character that they contain."""
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
