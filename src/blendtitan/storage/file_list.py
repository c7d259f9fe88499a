"""File lists: text files that name shards, their weights and their corpora.

What a line may be is told in ``list_text.py``. A folder in place of a prefix stands for every
shard below it. Lists without any weight, and folders, weigh shards by their tokens.
"""

import functools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from blendtitan.errors import FileListError
from blendtitan.storage.folders import corpus_in_folder, find_shards
from blendtitan.storage.list_line import Line
from blendtitan.storage.list_text import quoted, read_lines
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.stamps import Stamp, stamp_of
from blendtitan.storage.waiting import waiting_map
from blendtitan.storage.writer import write_atomically


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of a file list."""

    prefix: Path
    """Path without ``.bin``/``.idx``."""

    weight: float
    """Relative number of samples drawn from this shard. A corpus weighs what its shards weigh."""

    corpus: str
    """Name of the corpus that the shard belongs to."""


@dataclass(frozen=True, slots=True)
class ShardList:
    """The shards of a file list as columns, in reading order. They may be 100,000."""

    prefixes: list[str]
    """Absolute paths."""

    weights: list[float]
    corpora: list[str]

    stamps: list[Stamp | None]
    """Of the shards, as their files were when the list was read."""

    def __len__(self) -> int:
        return len(self.prefixes)

    def __iter__(self) -> Iterator[ShardEntry]:
        return map(ShardEntry, map(Path, self.prefixes), self.weights, self.corpora)


class NamedShard(NamedTuple):
    """A shard as it was named, before it is opened."""

    prefix: Path
    corpus: str


class _Shard(NamedTuple):
    prefix: str
    corpus: str
    stamp: Stamp | None


class _Named(NamedTuple):
    """What one line names: a shard, or those of a folder."""

    line: Line
    is_folder: bool
    shards: list[_Shard]


def read_file_list(path: Path) -> ShardList:
    """Shards named by a file list, or found in a folder, in reading order.

    Raises:
        FileListError: The list is missing or empty, or a line cannot be used.
        ShardError: A shard that is weighted by its tokens cannot be opened.
    """
    named = _found(_checked_lines(path.absolute()))
    shards = [shard for of_line in named for shard in of_line.shards]
    weights = list(_weights(named))
    _check_unique(shards, str(path))
    if not math.isfinite(sum(weights)):
        raise FileListError(f"{path}: the weights sum to more than a number can hold. Scale them.")
    if 0 in weights:
        nothing = shards[weights.index(0)].prefix
        raise FileListError(f"{path}: the part of {nothing} in its folder's weight is 0. Scale it.")
    return ShardList(
        prefixes=[_absolute(shard.prefix) for shard in shards],
        weights=weights,
        corpora=[shard.corpus for shard in shards],
        stamps=[shard.stamp for shard in shards],
    )


def named_shards(inputs: Sequence[Path]) -> list[NamedShard]:
    """Shards named by prefixes, folders and file lists, in reading order. None is opened.

    Raises:
        FileListError: An input cannot be used, or a shard is named twice.
    """
    named = [of_line for path in inputs for of_line in _found(_input_lines(path))]
    shards = [shard for of_line in named for shard in of_line.shards]
    _check_unique(shards, ", ".join(map(str, inputs)))
    return [NamedShard(Path(shard.prefix), shard.corpus) for shard in shards]


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
        lines.append(f"{entry.weight!r} {quoted(str(shown))} {quoted(entry.corpus)}")
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _checked_lines(path: Path) -> list[Line]:
    if os.path.isdir(path):
        return [Line(str(path), str(path))]
    lines = read_lines(path)
    if not lines:
        raise FileListError(f"{path}: no shard is named in it, expected at least one line")
    _check_weights_agree(lines)
    return lines


def _input_lines(path: Path) -> list[Line]:
    if path.suffix in (".bin", ".idx"):
        raise FileListError(f"{path}: name the shard without {path.suffix}")
    # A shard that lacks a file is named all the same, so that it is missed when it is opened.
    if any(os.path.exists(f"{path}{suffix}") for suffix in (".idx", ".bin")):
        return [Line(str(path), str(path))]
    return _checked_lines(path)


def _found(lines: list[Line]) -> list[_Named]:
    """The shards that lines name, and their stamps."""
    stamps = waiting_map(stamp_of, [line.path for line in lines])
    found = [_named(line, stamp) for line, stamp in zip(lines, stamps, strict=True)]
    _check_names_differ(found)
    return found


def _named(line: Line, stamp: Stamp | None) -> _Named:
    if stamp is not None or not _is_folder(line.path):
        return _Named(line, False, [_Shard(line.path, line.corpus or line.name, stamp)])
    prefixes = find_shards(Path(line.path))
    if not prefixes:
        raise FileListError(
            f"{line.where}: the folder {line.path} holds no .idx file, expected at least one shard"
        )
    stamps = waiting_map(stamp_of, [str(prefix) for prefix in prefixes])
    shards = [
        _Shard(str(prefix), line.corpus or corpus_in_folder(prefix, Path(line.path)), stamp)
        for prefix, stamp in zip(prefixes, stamps, strict=True)
    ]
    return _Named(line, True, shards)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.exists(f"{path}.idx")


def _weights(named: list[_Named]) -> Iterator[float]:
    weighed = [of_line for of_line in named if of_line.line.weight is None or of_line.is_folder]
    prefixes = [shard.prefix for of_line in weighed for shard in of_line.shards]
    tokens = iter(waiting_map(_num_tokens, prefixes))
    for line, is_folder, shards in named:
        if line.weight is not None and not is_folder:
            yield line.weight
            continue
        counts = list(islice(tokens, len(shards)))
        scale = 1.0 if line.weight is None else line.weight / sum(counts)
        yield from (count * scale for count in counts)


def _num_tokens(prefix: str) -> float:
    return float(ShardIndex.open(prefix).num_tokens)


def _absolute(path: str) -> str:
    """``os.path.abspath(path)``, for long lists."""
    is_so = path[0] == "/" and "/." not in path and "//" not in path and path[-1] != "/"
    return path if is_so else os.path.abspath(path)


def _check_weights_agree(lines: list[Line]) -> None:
    with_weight = next((line for line in lines if line.weight is not None), None)
    without = next((line for line in lines if line.weight is None), None)
    if with_weight and without:
        raise FileListError(
            f"{without.where}: the line has no weight, but {with_weight.where} has one. "
            f"Give every line a weight, or none (then shards are weighted by their tokens)."
        )


def _check_names_differ(found: list[_Named]) -> None:
    """Check that a corpus named by a file name is not also another line's."""
    named = {line.corpus for line, _, _ in found if line.corpus is not None}
    first_of: dict[str, str] = {}
    for line, is_folder, _ in found:
        if line.corpus is not None or is_folder:
            continue
        name = line.name
        first = first_of.setdefault(name, line.path)
        if name in named or os.path.dirname(first) != os.path.dirname(line.path):
            other = f"another line's corpus {name!r}" if name in named else first
            raise FileListError(
                f"{line.where}: {line.path} would be the corpus {name!r}, as would {other}. Name "
                f"the corpus of each: write the list as text with a line WEIGHT PREFIX CORPUS for "
                f"each shard. Where it has no weights, a shard's number of tokens is its weight."
            )


def _check_unique(shards: Iterable[_Shard], where: str) -> None:
    # A list has many files in few folders, and resolving a path asks for every part of it.
    real_folder = functools.cache(os.path.realpath)
    files: set[str] = set()
    first_of: dict[tuple[int, int], str] = {}
    for prefix, _, stamp in shards:
        name_at = prefix.rfind("/") + 1
        file = f"{real_folder(prefix[:name_at])}/{prefix[name_at:]}.bin"
        first = file if stamp is None else first_of.setdefault(stamp.bin_file, file)
        if first != file:  # Links. Those of the hard kind are files of their own.
            files.add(os.path.realpath(first))
            file = os.path.realpath(file)
        if file in files:
            raise FileListError(
                f"{where}: {prefix} is named twice, so its samples would be seen twice. "
                f"Name it once, with the sum of the weights."
            )
        files.add(file)
