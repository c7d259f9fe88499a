"""File lists: text files that name shards, their weights and their corpora.

    # weight  prefix          corpus
    0.7       web/part_00     web
    0.3       "my books/all"  books

A line is ``PREFIX``, ``WEIGHT PREFIX`` or ``WEIGHT PREFIX CORPUS``. Paths are absolute or relative
to the list. Without a corpus, the file name of the prefix is the corpus. Folders and Megatron-LM's
blends are read by ``list_forms.py``.
"""

import functools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from blendtitan.config import check_weight
from blendtitan.errors import ConfigError, FileListError
from blendtitan.files import io_map, path_of, read_text, url_of, with_retries
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature

# Not shlex: names such as it's, a#b and back\slash need no quotes in a list.
_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\S+)')


class Line(NamedTuple):
    """One line of a file list."""

    where: str
    """Names the line in errors."""

    path: str
    weight: float | None = None
    corpus: str | None = None

    @property
    def name(self) -> str:
        """File name of the path."""
        return self.path[self.path.rfind("/") + 1 :]


class ListedShard(NamedTuple):
    """A shard that a line names, directly or through a folder."""

    prefix: str
    corpus: str
    signature: FileSignature | None


class ListedShards(NamedTuple):
    """All shards that one line names."""

    line: Line
    is_folder: bool
    shards: list[ListedShard]


class ShardEntry(NamedTuple):
    """One shard of a file list."""

    prefix: Path
    """Path without ``.bin``/``.idx``."""

    weight: float
    """Relative number of samples drawn from this shard. A corpus has the sum of its shards."""

    corpus: str
    """Name of the corpus that the shard belongs to."""


@dataclass(frozen=True, slots=True)
class ShardList:
    """The shards of a file list as columns, in reading order. There may be 100,000."""

    prefixes: list[str]
    """Absolute paths."""

    weights: list[float]
    corpora: list[str]

    signatures: list[FileSignature | None]
    """The files of each shard when the list was read."""

    def __len__(self) -> int:
        return len(self.prefixes)

    def __iter__(self) -> Iterator[ShardEntry]:
        return map(ShardEntry, map(path_of, self.prefixes), self.weights, self.corpora)


def read_file_list(path: Path) -> ShardList:
    """Shards named by a file list, or found in a folder, in reading order.

    Raises:
        FileListError: The list is missing or empty, or a line cannot be used.
        ShardError: A shard that is weighted by its tokens cannot be opened.
    """
    listed = find_listed_shards(list_lines(path_of(path).absolute()))
    shards = [shard for of_line in listed for shard in of_line.shards]
    weights = list(_weights(listed))
    check_unique(shards, str(path))
    if not math.isfinite(sum(weights)):
        raise FileListError(f"{path}: the weights sum to infinity. Use smaller weights.")
    if 0 in weights:
        prefix = shards[weights.index(0)].prefix
        raise FileListError(
            f"{path}: the part of {prefix} in its folder's weight rounds to 0. Use larger weights."
        )
    return ShardList(
        prefixes=[shard.prefix for shard in shards],
        weights=weights,
        corpora=[shard.corpus for shard in shards],
        signatures=[shard.signature for shard in shards],
    )


def list_lines(path: Path) -> list[Line]:
    """The lines of a file list; a folder is a list of one line.

    Raises:
        FileListError: The list is missing or empty, or a line cannot be used.
    """
    if path.is_dir():
        return [Line(str(path), url_of(path) or os.path.normpath(path))]
    text = _read_list(path)
    lines: list[Line] = []
    error = None
    try:
        lines = plain_lines(text, path)
    except FileListError as caught:
        error = caught
    if error or len(lines) == 1 or not all(map(_has_our_form, lines)):
        from blendtitan.storage.list_forms import lines_of_other_form

        lines = lines_of_other_form(text, path, lines, error)
    if not lines:
        raise FileListError(f"{path}: found no shards, expected at least one line")
    _check_weights_agree(lines)
    return lines


def plain_lines(text: str, path: Path) -> list[Line]:
    """The lines of a list's text, without comments and blank lines.

    Raises:
        FileListError: A line has none of the three forms, or its weight cannot be used.
    """
    folder = os.path.join(os.path.dirname(path), "")
    # Not splitlines: it also splits at characters that names may hold.
    numbered = ((f"{path}:{i}", line) for i, line in enumerate(text.split("\n"), start=1))
    found = ((where, split_words(line, where=where)) for where, line in numbered)
    return [_line(words, folder=folder, where=where) for where, words in found if words]


def split_words(line: str, *, where: str) -> list[str]:
    """The words of one line, without quotes and comments.

    Raises:
        FileListError: A quote is not closed, or is followed by anything but a space.
    """
    if not ('"' in line or "'" in line or "#" in line):  # nearly every line of a long list
        return line.split()
    words: list[str] = []
    at = 0
    while match := _WORD.search(line, at):
        double, single, bare = match.groups()
        if bare is not None and bare.startswith("#"):
            break
        if bare is not None and bare[0] in "\"'":
            raise FileListError(f"{where}: found {bare!r}, expected a closing quote")
        words.append(next(word for word in (double, single, bare) if word is not None))
        at = match.end()
        if at < len(line) and not line[at].isspace():
            raise FileListError(f"{where}: found {line[at:]!r} after a quote, expected a space")
    return words


def find_listed_shards(lines: Sequence[Line]) -> list[ListedShards]:
    """The shards that each line names, with the signatures of their files.

    Raises:
        FileListError: A folder cannot be searched or holds no shard, or two lines without a corpus
            would share one.
    """
    signatures = io_map(file_signature, [line.path for line in lines])
    listed = [_listed(line, found) for line, found in zip(lines, signatures, strict=True)]
    _check_names_differ(listed)
    return listed


def check_unique(shards: Iterable[ListedShard], where: str) -> None:
    """Check that no shard is listed twice, even through links.

    Raises:
        FileListError: A shard is listed twice.
    """
    # A list has many files in few folders, and resolving a path looks up each of its parts.
    real_folder = functools.cache(os.path.realpath)
    files: set[str] = set()
    first_of: dict[tuple[int, int], str] = {}
    for prefix, _, signature in shards:
        name_at = prefix.rfind("/") + 1
        file = f"{real_folder(prefix[:name_at])}/{prefix[name_at:]}.bin"
        first = file if signature is None else first_of.setdefault(signature.bin_file, file)
        if first != file:  # Links. Hard links are files of their own.
            files.add(os.path.realpath(first))
            file = os.path.realpath(file)
        if file in files:
            raise FileListError(
                f"{where}: {prefix} is listed twice, so its samples would be repeated. List it "
                f"once, with the sum of the weights."
            )
        files.add(file)


def _read_list(path: Path) -> str:
    try:
        text = with_retries(lambda: read_text(path, encoding="utf-8-sig"), path=str(path))
    except FileNotFoundError:
        from blendtitan.storage.list_forms import nearest_name

        raise FileListError(
            f"{path}: there is no such file or folder. {nearest_name(path)}".rstrip()
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileListError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise FileListError(f"{path}:{number}: found a zero byte, expected text")
    return text


def _has_our_form(line: Line) -> bool:
    """Whether a line cannot be part of a blend of Megatron-LM."""
    return line.weight is not None and "/" not in (line.corpus or "")


def _line(words: list[str], *, folder: str, where: str) -> Line:
    if len(words) > 3:
        raise FileListError(
            f"{where}: found {len(words)} words, expected PREFIX, WEIGHT PREFIX or "
            f"WEIGHT PREFIX CORPUS. Quote a path that contains spaces."
        )
    word = words[0] if len(words) == 1 else words[1]
    # The folder ends in a slash: os.path.join is slow on long lists.
    is_whole = word.startswith("/") or "://" in word
    path = os.path.normpath(word if is_whole else folder + word)
    path = path if path.startswith("/") else url_of(path) or path
    if len(words) == 1:
        return Line(where, path)
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
    return Line(where, path, weight, corpus)


def _listed(line: Line, signature: FileSignature | None) -> ListedShards:
    path = line.path
    if signature is not None or not path_of(path).is_dir() or path_of(f"{path}.idx").exists():
        return ListedShards(line, False, [ListedShard(path, line.corpus or line.name, signature)])
    from blendtitan.storage.list_forms import shards_in_folder

    return ListedShards(line, True, shards_in_folder(line))


def _weights(listed: list[ListedShards]) -> Iterator[float]:
    weighed = [of_line for of_line in listed if of_line.line.weight is None or of_line.is_folder]
    prefixes = [shard.prefix for of_line in weighed for shard in of_line.shards]
    tokens = iter(io_map(_num_tokens, prefixes))
    for line, is_folder, shards in listed:
        if line.weight is not None and not is_folder:
            yield line.weight
            continue
        counts = list(islice(tokens, len(shards)))
        scale = 1.0 if line.weight is None else line.weight / sum(counts)
        yield from (count * scale for count in counts)


def _num_tokens(prefix: str) -> float:
    return float(ShardIndex.open(prefix).num_tokens)


def _check_weights_agree(lines: list[Line]) -> None:
    with_weight = next((line for line in lines if line.weight is not None), None)
    without = next((line for line in lines if line.weight is None), None)
    if with_weight and without:
        raise FileListError(
            f"{without.where}: the line has no weight, but {with_weight.where} has one. "
            f"Give every line a weight, or none (then shards are weighted by their tokens)."
        )


def _check_names_differ(listed: list[ListedShards]) -> None:
    """Check that no two lines give the same corpus by file name."""
    named = {line.corpus for line, _, _ in listed if line.corpus is not None}
    first_of: dict[str, str] = {}
    for line, is_folder, _ in listed:
        if line.corpus is not None or is_folder:
            continue
        name = line.name
        first = first_of.setdefault(name, line.path)
        if name in named or os.path.dirname(first) != os.path.dirname(line.path):
            other = f"another line's corpus {name!r}" if name in named else first
            raise FileListError(
                f"{line.where}: {line.path} would be the corpus {name!r}, as would {other}. Name "
                f"the corpus of each: write the list as text with a line WEIGHT PREFIX CORPUS for "
                f"each shard. Without weights, a shard's number of tokens is its weight."
            )
