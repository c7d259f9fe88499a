"""The part of an error that says what an unknown word may stand for.

A suggestion must be right or absent: it is another trainer's name of a key, or differs from what
was typed by a typing mistake or two.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher

from blendtitan.settings.old_keys import MOVED_SECTIONS, RENAMED
from blendtitan.settings.other_names import EXPLAINED, OTHER_NAMES, OTHER_SECTIONS

_MOST_LETTERS = 4
"""Most letters that two mistakes add and remove: each of two that are swapped, for example."""

_FEWEST_LETTERS = 3
"""Shorter words are near only if they are equal."""

_FEWEST_ELSEWHERE = 8
"""Shorter names of another section must be spelled correctly."""

_REPEATING = {
    *("blendcorpus.seq_length", "blendcorpus.micro_batch_size"),
    *("validation.seq_len", "validation.local_batch_size"),
}
"""Keys that must equal others, and so are never suggested."""

Meanings = dict[str, str]
"""Names of keys, without their section, to a sentence about what to set."""


# Keys


def key_advice(key: str, known: Collection[str]) -> str:
    """What an unknown ``section.key`` may stand for, or else the keys that its section has."""
    if found := meaning(key, known):
        return found
    section = key.rpartition(".")[0]
    section = _present_section(section, known) or section
    inside = [each.removeprefix(f"{section}.") for each in known if each.startswith(f"{section}.")]
    return f"The keys of [{section}] are {', '.join(inside)}." if inside else _sections(known)


def section_advice(key: str, known: Collection[str]) -> str:
    """What a section that there is not, or ``section.key`` in it, may stand for."""
    section, _, name = key.partition(".")
    if name and (found := meaning(key, known)):
        return found
    if found := _present_section(section, known):
        return f"Did you mean [{found}]?"
    return _sections(known)


def _sections(known: Collection[str]) -> str:
    return f"The sections are {', '.join(dict.fromkeys(each.partition('.')[0] for each in known))}."


def meaning(key: str, known: Collection[str]) -> str | None:
    """What an unknown key, with or without its section, may stand for; None if that is unclear."""
    section, _, name = key.rpartition(".")
    present = _present_section(section, known) or section
    own = _in_section(present, known) | _in_table(present)
    places = (_in_table(section), own, _anywhere(known))
    for meanings in places:
        for each, found in meanings.items():
            if _plain(each) == _plain(name):
                return found
    # Short names of other sections resemble too many words: ``type`` is not ``dtype`` mistyped.
    mistyped = places if len(_plain(name)) >= _FEWEST_ELSEWHERE else places[:2]
    for meanings in mistyped if section else ():
        if each := nearest(name, meanings):
            return meanings[each]
    return None


def _in_section(section: str, known: Collection[str]) -> Meanings:
    """The keys of a section, by their present and their old names."""
    present = {key: key for key in known if key not in _REPEATING} | dict(RENAMED)
    keys = {key.rpartition("."): name for key, name in present.items()}
    return {last: _suggestion(key) for (start, _, last), key in keys.items() if start == section}


def _in_table(section: str) -> Meanings:
    """The entries of the tables for one section, or those for all sections if its name is empty."""
    entries = [
        *((words, _suggestion(key)) for key, words in OTHER_NAMES.items()),
        *EXPLAINED.items(),
    ]
    spelled = [(word.rpartition("."), said) for words, said in entries for word in words.split()]
    return {last: said for (start, _, last), said in spelled if start == section}


def _anywhere(known: Collection[str]) -> Meanings:
    """The names that mean one key wherever they stand. Of one word, the tables have them."""
    keys = {key: key.rpartition(".")[2] for key in known}
    number = Counter(keys.values())
    only = {last: key for key, last in keys.items() if "_" in last and number[last] == 1}
    return {last: _suggestion(key) for last, key in only.items()} | _in_table("")


def _suggestion(key: str) -> str:
    return f"Did you mean {key}?"


def _present_section(section: str, known: Collection[str]) -> str | None:
    """The section that a name stands for, if it is clear."""
    names = {word: each for each, words in OTHER_SECTIONS.items() for word in words.split()}
    names |= MOVED_SECTIONS
    names |= {each: each for each in (key.rpartition(".")[0] for key in known)}
    found = nearest(section, names) if section else None
    return None if found is None else names[found]


# Words


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean X?`` if a known word is near, else nothing."""
    found = nearest(word, known)
    return f" Did you mean {found}?" if found else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that differs by the fewest letters; None if all differ by too many."""
    differences = {each: _difference(word, each) for each in known}
    near = {each: number for each, number in differences.items() if number is not None}
    return min(near, key=near.__getitem__, default=None)


def _difference(word: str, known: str) -> int | None:
    """Letters that one has and the other lacks; None if that is more than mistyping explains.

    The parts of a name are compared one by one: ``gc_freq`` is not ``log_freq`` mistyped.
    """
    plain = (_plain(word), _plain(known))
    if plain[0] == plain[1]:
        return 0
    if _digits(word) not in ("", _digits(known)):
        return None
    parts, others = _parts(word), _parts(known)
    if len(parts) != len(others):  # an underscore is missing, and the rest is mistyped
        is_part = {*parts} <= {*others} or {*others} <= {*parts}
        number = _mistyped(*plain)
        return None if is_part or number is None or 10 * number > sum(map(len, plain)) else number
    numbers = [_mistyped(*pair) for pair in zip(parts, others, strict=True)]
    total = sum(number for number in numbers if number is not None)
    return None if None in numbers or total > _MOST_LETTERS else total


def _mistyped(one: str, other: str) -> int | None:
    blocks = SequenceMatcher(None, one, other).get_matching_blocks()
    letters = len(one) + len(other)
    number = letters - 2 * sum(block.size for block in blocks)
    if number > 0 and min(len(one), len(other)) < _FEWEST_LETTERS:
        return None
    return number if number <= 2 and 5 * number <= letters else None


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]


def _plain(name: str) -> str:
    return "".join(_parts(name))


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)
