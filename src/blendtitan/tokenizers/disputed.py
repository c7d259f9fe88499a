"""Texts that only the reference tier may encode."""

import re
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""Code points as pairs of first and last, in ascending order."""


class DisputedTexts:
    """Whether a text contains anything on which the tiers are known to disagree."""

    def __init__(self, ranges: Ranges = (), markers: tuple[str, ...] = ()) -> None:
        self.ranges = ranges
        """Code points that the tiers may treat differently."""
        self.markers = markers
        """Strings one of which is in every text that holds a symbol only the reference reads."""
        self._leads = _leads(ranges)
        self._code_points = re.compile(_character_class(ranges)) if ranges else None
        self._hints = _hints(markers)
        self._markers = re.compile("|".join(map(re.escape, markers))) if markers else None

    def __call__(self, text: str) -> bool:
        """Whether a text is disputed."""
        return self._has_marker(text) or self._has_code_point(text)

    def _has_marker(self, text: str) -> bool:
        if self._markers is None or not any(hint in text for hint in self._hints):
            return False
        return bool(self._markers.search(text))

    def _has_code_point(self, text: str) -> bool:
        if self._code_points is None or text.isascii():
            return False
        # Looking for a few bytes is many times faster than looking for ranges of characters.
        content = text.encode(errors="surrogatepass")
        if not any(lead in content for lead in self._leads):
            return False
        return bool(self._code_points.search(text))


def ranges_of(codes: Iterable[int]) -> Ranges:
    """Code points as ranges. Neighbours with a gap of code points in no use count as one."""
    ranges: list[tuple[int, int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return tuple(ranges)


def _character_class(ranges: Ranges) -> str:
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"


def _leads(ranges: Ranges) -> tuple[bytes, ...]:
    """First bytes of the code points in UTF-8."""
    leads = {
        chr(code).encode(errors="surrogatepass")[:1]
        for first, last in ranges
        for code in (*range(first, last, 64), last)
    }
    return tuple(sorted(leads))


def _hints(markers: Iterable[str]) -> tuple[str, ...]:
    """Few short strings one of which is in every marker, because searching for many is slow."""
    missing = set(markers)
    hints: list[str] = []
    while missing:
        counts: dict[str, int] = {}
        for marker in missing:
            for hint in {marker[at : at + 2] for at in range(max(1, len(marker) - 1))}:
                counts[hint] = counts.get(hint, 0) + 1
        # Of equally frequent ones, one without letters, spaces and digits is rarer in text.
        hints.append(max(counts, key=lambda hint: (counts[hint], _num_odd(hint), hint)))
        missing = {marker for marker in missing if hints[-1] not in marker}
    return tuple(hints)


def _num_odd(hint: str) -> int:
    return sum(not char.isalnum() and not char.isspace() for char in hint)
