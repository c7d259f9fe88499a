"""File lists: text files that name shards, their weights and their corpora.

    # weight  prefix          corpus
    0.7       web/part_00     web
    0.3       "my books/all"  books

A line is ``PREFIX``, ``WEIGHT PREFIX`` or ``WEIGHT PREFIX CORPUS``. Paths are absolute or
relative to the list. Where the corpus is missing, the file name of the prefix is the corpus.
A folder in place of a prefix stands for every shard below it. Lists without any weight, and
folders, weigh shards by their tokens.
"""

import difflib
import functools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from blendtitan.config import check_weight
from blendtitan.errors import ConfigError, FileListError
from blendtitan.storage.folders import corpus_in_folder, find_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.retries import RETRIES
from blendtitan.storage.writer import write_atomically

_MARKS = frozenset("\"'#")
_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\S+)')

_THREADS = 16


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of a file list."""

    prefix: Path
    """Path without ``.bin``/``.idx``."""

    weight: float
    """Relative number of samples drawn from this shard. A corpus weighs what its shards weigh."""

    corpus: str
    """Name of the corpus that the shard belongs to."""


class NamedShard(NamedTuple):
    """A shard as it was named, before it is opened."""

    prefix: Path
    corpus: str


@dataclass(frozen=True, slots=True)
class _Line:
    where: str
    weight: float | None
    path: Path
    corpus: str | None
    is_folder: bool

    @classmethod
    def of(cls, where: str, path: Path, *, weight: float | None, corpus: str | None) -> Self:
        is_folder = os.path.isdir(path) and not os.path.exists(f"{path}.idx")
        return cls(where, weight, path, corpus, is_folder)


def read_file_list(path: Path) -> tuple[ShardEntry, ...]:
    """Shards named by a file list, or found in a folder, in reading order.

    Raises:
        FileListError: The list is missing or empty, or a line cannot be used.
        ShardError: A shard that is weighted by its tokens cannot be opened.
    """
    entries = tuple(_entries(_checked_lines(path)))
    _check_unique((entry.prefix for entry in entries), str(path))
    if not math.isfinite(sum(entry.weight for entry in entries)):
        raise FileListError(f"{path}: the weights sum to more than a number can hold. Scale them.")
    nothing = next((entry.prefix for entry in entries if entry.weight == 0), None)
    if nothing is not None:
        raise FileListError(f"{path}: the part of {nothing} in its folder's weight is 0. Scale it.")
    return entries


def named_shards(inputs: Sequence[Path]) -> list[NamedShard]:
    """Shards named by prefixes, folders and file lists, in reading order. None is opened.

    Raises:
        FileListError: An input cannot be used, or a shard is named twice.
    """
    lines = [line for path in inputs for line in _input_lines(path)]
    shards = [shard for line in lines for shard in _shards(line)]
    _check_unique((shard.prefix for shard in shards), ", ".join(map(str, inputs)))
    return shards


def write_file_list(path: Path, entries: Iterable[ShardEntry], *, header: str = "") -> None:
    """Write a file list that ``read_file_list`` reads back to the same entries.

    Weights are written exactly; prefixes below the list's folder are written relative to it.

    Args:
        path: Replaced in one step if it exists.
        entries: Shards in reading order.
        header: Text written above the shards, as comments.
    """
    folder = path.resolve().parent
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for entry in entries:
        prefix = entry.prefix.resolve()
        shown = prefix.relative_to(folder) if prefix.is_relative_to(folder) else prefix
        lines.append(f"{entry.weight!r} {_quoted(str(shown))} {_quoted(entry.corpus)}")
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _checked_lines(path: Path) -> list[_Line]:
    if os.path.isdir(path):
        return [_Line.of(str(path), path, weight=None, corpus=None)]
    lines = list(_lines(path))
    if not lines:
        raise FileListError(f"{path}: no shard is named in it, expected at least one line")
    _check_weights_agree(lines)
    _check_names_differ(lines)
    return lines


def _input_lines(path: Path) -> list[_Line]:
    if path.suffix in (".bin", ".idx"):
        raise FileListError(f"{path}: name the shard without {path.suffix}")
    # A shard that lacks a file is named all the same, so that it is missed when it is opened.
    if any(os.path.exists(f"{path}{suffix}") for suffix in (".idx", ".bin")):
        return [_Line.of(str(path), path, weight=None, corpus=None)]
    return _checked_lines(path)


def _lines(path: Path) -> Iterator[_Line]:
    try:
        text = RETRIES.tried(lambda: path.read_text(encoding="utf-8-sig"), path=str(path))
    except FileNotFoundError:
        raise FileListError(f"{path}: there is no such file. {_nearest(path)}".rstrip()) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileListError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    # Not splitlines: a name may hold a character that it takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        if "\0" in line:
            raise FileListError(f"{path}:{number}: found a zero byte, expected text")
        words = _words(line, where=f"{path}:{number}")
        if words:
            yield _line(words, folder=path.parent, where=f"{path}:{number}")


def _words(line: str, *, where: str) -> list[str]:
    if not _MARKS.intersection(line):  # nearly every line of a long list
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


def _line(words: list[str], *, folder: Path, where: str) -> _Line:
    if len(words) > 3:
        raise FileListError(
            f"{where}: found {len(words)} words, expected PREFIX, WEIGHT PREFIX or "
            f"WEIGHT PREFIX CORPUS. Quote a path that contains spaces."
        )
    if len(words) == 1:
        return _Line.of(where, folder / words[0], weight=None, corpus=None)
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
    return _Line.of(where, folder / words[1], weight=weight, corpus=corpus)


def _entries(lines: Sequence[_Line]) -> Iterator[ShardEntry]:
    named = [(line, _shards(line)) for line in lines]
    weighed = (shards for line, shards in named if line.weight is None or line.is_folder)
    tokens = iter(_tokens(shard.prefix for shards in weighed for shard in shards))
    for line, shards in named:
        if line.weight is not None and not line.is_folder:
            weights = [line.weight] * len(shards)
        else:
            counts = list(islice(tokens, len(shards)))
            scale = 1.0 if line.weight is None else line.weight / sum(counts)
            weights = [count * scale for count in counts]
        for (prefix, corpus), weight in zip(shards, weights, strict=True):
            yield ShardEntry(prefix, weight, corpus)


def _shards(line: _Line) -> list[NamedShard]:
    if not line.is_folder:
        return [NamedShard(line.path, line.corpus or line.path.name)]
    prefixes = find_shards(line.path)
    if not prefixes:
        raise FileListError(
            f"{line.where}: the folder {line.path} holds no .idx file, expected at least one shard"
        )
    return [
        NamedShard(prefix, line.corpus or corpus_in_folder(prefix, line.path))
        for prefix in prefixes
    ]


def _tokens(prefixes: Iterable[Path]) -> list[float]:
    """Tokens of shards, as weights. Opening a file waits for the disk, so many are at once."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_num_tokens, prefixes))


def _num_tokens(prefix: Path) -> float:
    return float(ShardIndex.open(prefix).num_tokens)


def _check_weights_agree(lines: list[_Line]) -> None:
    with_weight = next((line for line in lines if line.weight is not None), None)
    without = next((line for line in lines if line.weight is None), None)
    if with_weight and without:
        raise FileListError(
            f"{without.where}: the line has no weight, but {with_weight.where} has one. "
            f"Give every line a weight, or none (then shards are weighted by their tokens)."
        )


def _check_names_differ(lines: list[_Line]) -> None:
    """Check that a corpus named by a file name is not also another line's."""
    named = {line.corpus for line in lines if line.corpus is not None}
    first_of: dict[str, Path] = {}
    for line in lines:
        if line.corpus is not None or line.is_folder:
            continue
        name = line.path.name
        first = first_of.setdefault(name, line.path)
        if name in named or first.parent != line.path.parent:
            other = f"another line's corpus {name!r}" if name in named else str(first)
            raise FileListError(
                f"{line.where}: {line.path} would be the corpus {name!r}, as would {other}. Name "
                f"the corpus of each in a third column."
            )


def _check_unique(prefixes: Iterable[Path], where: str) -> None:
    # A list has many files in few folders, and resolving a path asks for every part of it.
    real_folder = functools.cache(os.path.realpath)
    files: set[str] = set()
    for prefix in prefixes:
        folder, name = os.path.split(f"{prefix}.bin")
        file = os.path.join(real_folder(folder), name)
        if os.path.islink(file):
            file = os.path.realpath(file)
        if file in files:
            raise FileListError(
                f"{where}: {prefix} is named twice, so its samples would be seen twice. "
                f"Name it once, with the sum of the weights."
            )
        files.add(file)


def _nearest(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else ""


def _quoted(word: str) -> str:
    if not word.isprintable():
        raise FileListError(f"{word!r}: a name with such characters cannot be written to a list")
    if word and not re.search(r"[\s\"'#]", word):
        return word
    if '"' not in word:
        return f'"{word}"'
    if "'" not in word:
        return f"'{word}'"
    raise FileListError(f"{word}: a name with both kinds of quotes cannot be written to a list")
