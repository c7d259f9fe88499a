"""The text of file lists: lines to words, words to lines. No shard is looked for.

    # weight  prefix          corpus
    0.7       web/part_00     web
    0.3       "my books/all"  books

A line is ``PREFIX``, ``WEIGHT PREFIX`` or ``WEIGHT PREFIX CORPUS``. Paths are absolute or
relative to the list. Where the corpus is missing, the file name of the prefix is the corpus.
Megatron-LM's blends are read as well: see ``megatron_blends.py``.
"""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from blendtitan.config import check_weight
from blendtitan.errors import ConfigError, FileListError
from blendtitan.regular_files import read_text
from blendtitan.storage.list_line import Line
from blendtitan.storage.megatron_blends import (
    check_corpora,
    is_fraction,
    lines_of_json,
    lines_of_words,
)
from blendtitan.storage.retries import RETRIES

_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\S+)')


def read_lines(path: Path) -> list[Line]:
    """The lines of a file list that are not empty.

    Raises:
        FileListError: It is missing, or a line cannot be used.
    """
    try:
        text = RETRIES.tried(lambda: read_text(path, encoding="utf-8-sig"), path=str(path))
    except FileNotFoundError:
        raise FileListError(f"{path}: there is no such file. {_nearest(path)}".rstrip()) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileListError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise FileListError(f"{path}:{number}: found a zero byte, expected text")
    blend = lines_of_json(text, path)
    if blend is not None:
        return blend
    try:
        lines = list(_lines(text, path))
    except FileListError:
        blend = _lines_of_blend(text, path)
        if blend is None:
            raise
        return blend
    blend = _lines_of_blend(text, path) if _may_be_blend(lines) else None
    if blend is None:
        check_corpora(lines, text, path)
    return blend or lines


def _may_be_blend(lines: list[Line]) -> bool:
    """Whether lines that have our form make no sense in it."""
    if not lines or lines[0].weight is not None:
        return any(line.weight is None for line in lines)
    first = lines[0]
    is_number = first.name.replace(".", "", 1).isdecimal()
    return is_number and not (os.path.exists(f"{first.path}.idx") or os.path.isdir(first.path))


def _lines_of_blend(text: str, path: Path) -> list[Line] | None:
    """The lines of a text that is no list of ours, but perhaps one of Megatron-LM's."""
    try:
        words = [word for line in text.split("\n") for word in _words(line, where=str(path))]
        return lines_of_words(words, path)
    except FileListError as error:
        # What is wrong by the form of our lists names the line, and comes first.
        if "Megatron-LM" in str(error):
            raise
        return None


def quoted(word: str) -> str:
    """A word as it is written to a list.

    Raises:
        FileListError: No list can hold it.
    """
    if not word.isprintable():
        raise FileListError(f"{word!r}: a name with such characters cannot be written to a list")
    if word and not re.search(r"[\s\"'#]", word) and not is_fraction(word):
        return word
    if '"' not in word:
        return f'"{word}"'
    if "'" not in word:
        return f"'{word}'"
    raise FileListError(f"{word}: a name with both kinds of quotes cannot be written to a list")


def _lines(text: str, path: Path) -> Iterator[Line]:
    folder = os.path.join(os.path.dirname(path), "")
    # Not splitlines: a name may hold a character that it takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        words = _words(line, where=f"{path}:{number}")
        if words:
            yield _line(words, folder=folder, where=f"{path}:{number}")


def _words(line: str, *, where: str) -> list[str]:
    if not ('"' in line or "'" in line or "#" in line):  # nearly every line of a long list
        return line.split()
    words: list[str] = []
    at = 0
    while match := _WORD.search(line, at):
        if match.start(3) >= 0 and match[3].startswith("#"):
            break
        if match.start(3) >= 0 and match[3][0] in "\"'":
            raise FileListError(f"{where}: found {match[3]!r}, expected a closing quote")
        words.append(next(group for group in match.groups() if group is not None))
        at = match.end()
        if at < len(line) and not line[at].isspace():
            raise FileListError(f"{where}: found {line[at:]!r} after a quote, expected a space")
    return words


def _line(words: list[str], *, folder: str, where: str) -> Line:
    if len(words) > 3:
        raise FileListError(
            f"{where}: found {len(words)} words, expected PREFIX, WEIGHT PREFIX or "
            f"WEIGHT PREFIX CORPUS. Quote a path that contains spaces."
        )
    if len(words) == 1:
        return Line(where, _joined(folder, words[0]))
    try:
        weight = float(words[0])
    except ValueError:
        raise FileListError(
            f"{where}: weight is {words[0]!r}, expected a number. "
            f"Quote a path that contains spaces."
        ) from None
    try:
        check_weight(weight, where=where)
    except ConfigError as error:
        raise FileListError(str(error)) from None
    corpus = words[2] if len(words) == 3 else None
    if corpus == "":
        raise FileListError(f"{where}: the corpus is empty, expected a name")
    return Line(where, _joined(folder, words[1]), weight, corpus)


def _joined(folder: str, word: str) -> str:
    """What ``str(Path(folder, word))`` is, for long lists."""
    path = word if word.startswith("/") else folder + word
    is_tidy = word and word[0] != "." and word[-1] != "/" and "/." not in path and "//" not in path
    return path if is_tidy else str(Path(path))


def _nearest(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else ""
