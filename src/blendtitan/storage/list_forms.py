"""Other forms of file lists: folders, Megatron-LM's blends and the inputs of commands.

Megatron-LM's ``--data-args-path`` names a text of words, in lines of any length: either
``WEIGHT PREFIX WEIGHT PREFIX ...`` or ``PREFIX PREFIX ...``. ``--per-split-data-args-path`` names a
JSON object of such lists, one per split.

Source: ``get_blend_from_list`` and ``get_blend_and_blend_per_split`` of Megatron-LM.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, cast

from blendtitan.config import SPLITS, check_weight
from blendtitan.errors import ConfigError, FileListError
from blendtitan.files import io_map, path_of, url_of
from blendtitan.storage.atomic_files import write_atomically
from blendtitan.storage.file_list import (
    Line,
    ListedShard,
    ShardEntry,
    check_unique,
    find_listed_shards,
    list_lines,
    split_words,
)
from blendtitan.storage.reader import file_signature
from blendtitan.storage.records import CATALOG_FILE
from blendtitan.visible import visible


class NamedShard(NamedTuple):
    """A shard that an input names, not yet opened."""

    prefix: Path
    corpus: str


def named_shards(inputs: Sequence[Path]) -> list[NamedShard]:
    """Shards named by prefixes, folders and file lists, in reading order. None is opened.

    Raises:
        FileListError: An input cannot be used, or a shard is named twice.
    """
    listed = [of_line for path in inputs for of_line in find_listed_shards(_input_lines(path))]
    shards = [shard for of_line in listed for shard in of_line.shards]
    check_unique(shards, ", ".join(map(str, inputs)))
    return [NamedShard(path_of(shard.prefix), shard.corpus) for shard in shards]


def write_file_list(path: Path, entries: Iterable[ShardEntry], *, header: str = "") -> None:
    """Write a file list that ``read_file_list`` reads back to the same entries.

    Weights are written exactly; prefixes below the list's folder are written relative to it. The
    header is written above, as comments. An old file is replaced in one step.
    """
    folder = path.resolve().parent
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for entry in entries:
        prefix = entry.prefix.resolve()
        shown = prefix.relative_to(folder) if prefix.is_relative_to(folder) else prefix
        lines.append(f"{entry.weight!r} {quoted_word(str(shown))} {quoted_word(entry.corpus)}")
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def find_shards(folder: Path) -> list[Path]:
    """Prefixes of all ``.bin`` and ``.idx`` files below ``folder``, sorted by path.

    Symbolic links are followed. A file without its other half is included, so that opening the
    shard reports it.

    Raises:
        FileListError: A folder cannot be read.
    """
    if url := url_of(folder):
        from blendtitan.remote import prefixes_below

        return prefixes_below(url)

    def refuse(error: OSError) -> None:
        raise FileListError(f"{error.filename}: cannot be searched ({error.strerror})") from error

    found: set[Path] = set()
    real = [os.path.realpath(folder)]  # of each folder from the top down to the current one
    depth_of_first = len(folder.parts)
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        depth = len(Path(root).parts) - depth_of_first
        if depth:
            above, name = real[depth - 1], os.path.basename(root)
            real[depth:] = [
                os.path.realpath(root) if os.path.islink(root) else os.path.join(above, name)
            ]
        # A link to a folder above would never end.
        if any(os.path.commonpath([real[depth], above]) == real[depth] for above in real[:depth]):
            folders.clear()
            continue
        names = [name for name in files if name.endswith((".idx", ".bin"))]
        found.update(Path(root, _checked_name(name, root)[:-4]) for name in names)
    return sorted(found)


def find_catalogs(folder: Path) -> list[Path]:
    """The folders at or below ``folder`` with a catalog, sorted by path."""
    if url := url_of(folder):
        from blendtitan.remote import files_below

        files = [path_of(file) for file in sorted(files_below(url))]
        return [file.parent for file in files if file.name == CATALOG_FILE]
    return [file.parent for file in sorted(folder.rglob(CATALOG_FILE))]


def corpus_in_folder(prefix: Path, folder: Path) -> str:
    """Corpus of a shard found in ``folder``: its first-level subfolder, else the folder itself."""
    parts = prefix.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else folder.resolve().name


def nested_corpora(folder: Path, prefixes: Iterable[Path]) -> str:
    """A warning if a folder is probably the one above the folder of corpora; empty if not.

    ``prefixes`` are those of the shards below it.
    """
    parts = [prefix.relative_to(folder).parts for prefix in prefixes]
    outer = {each[0] for each in parts}
    inner = sorted({each[1] for each in parts if len(each) > 2})
    if len(outer) != 1 or len(inner) < 2:
        return ""
    (corpus,) = outer
    return (
        f"{folder}: all shards are in the one corpus {corpus!r}, because a corpus is a folder "
        f"directly below the given one. For the corpora {', '.join(inner)}: did you mean "
        f"{folder / corpus}?"
    )


def shards_in_folder(line: Line) -> list[ListedShard]:
    """All shards below the folder that a line names.

    Raises:
        FileListError: The folder cannot be searched or holds no shard.
    """
    folder = path_of(line.path)
    prefixes = find_shards(folder)
    if not prefixes:
        what = "this folder" if line.where == line.path else f"the folder {line.path}"
        raise FileListError(f"{line.where}: {what} holds no .idx file, expected at least one shard")
    paths = [str(prefix) for prefix in prefixes]
    corpora = [line.corpus or corpus_in_folder(prefix, folder) for prefix in prefixes]
    return list(map(ListedShard, paths, corpora, io_map(file_signature, paths)))


def lines_of_other_form(
    text: str, path: Path, lines: list[Line], error: FileListError | None
) -> list[Line]:
    """The lines of a list that may be a blend of Megatron-LM, or that is not in our form.

    ``lines`` are the lines in our form; ``error`` is the reason if there are none.

    Raises:
        FileListError: It has neither form.
    """
    blend = _lines_of_json(text, path)
    if blend is None and (error is not None or _may_be_blend(lines)):
        blend = _lines_of_blend(text, path)
    if blend is not None:
        return blend
    if error is not None:
        raise error
    _check_corpora(lines, text, path)
    return lines


def nearest_name(path: Path) -> str:
    """A sentence that suggests the nearest name in the folder of a missing file, if any is near."""
    try:
        names = [other.name for other in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else ""


def _input_lines(path: Path) -> list[Line]:
    if path.suffix in (".bin", ".idx"):
        raise FileListError(f"{path}: name the shard without {path.suffix}")
    # A shard that lacks a file is accepted here, so that opening it reports the missing file.
    if any(path_of(f"{path}{suffix}").exists() for suffix in (".idx", ".bin")):
        return [Line(str(path), str(path))]
    return list_lines(path)


def quoted_word(word: str) -> str:
    """A word in the form of a list, quoted if needed."""
    if not word.isprintable():
        raise FileListError(f"{word!r}: a name with such characters cannot be written to a list")
    if word and not re.search(r"[\s\"'#]", word) and not _is_fraction(word):
        return word
    if '"' not in word:
        return f'"{word}"'
    if "'" not in word:
        return f"'{word}'"
    raise FileListError(f"{word}: a name with both kinds of quotes cannot be written to a list")


def _checked_name(name: str, folder: str) -> str:
    try:
        os.path.join(folder, name).encode()
    except UnicodeEncodeError:
        raise FileListError(
            f"{folder!a}: the name {name!a} is not UTF-8. Rename it, so that it can be logged and "
            f"kept in checkpoints."
        ) from None
    return name


def _may_be_blend(lines: list[Line]) -> bool:
    """Whether lines in our form make sense only as a blend."""
    if not lines or lines[0].weight is not None:
        return any(line.weight is None for line in lines)
    first = lines[0]
    is_number = first.name.replace(".", "", 1).isdecimal()
    return is_number and not (path_of(f"{first.path}.idx").exists() or path_of(first.path).is_dir())


def _lines_of_blend(text: str, path: Path) -> list[Line] | None:
    """The lines of a ``--data-args-path`` file. None: the text is another kind of file.

    Words without weights are prefixes only if each of them is a shard: they may be a path with
    spaces.
    """
    try:
        words = [word for line in text.split("\n") for word in split_words(line, where=str(path))]
        if _has_weights(words):
            return _weighted_lines(words, path)
        prefixes = [_found_prefix(word, path) for word in words]
    except FileListError as error:
        # An error about the form of our lists names the line, and comes first.
        if "Megatron-LM" in str(error):
            raise
        return None
    if len(words) > 1 and all(path_of(f"{prefix}.idx").exists() for prefix in prefixes):
        return [Line(f"{path}", prefix) for prefix in prefixes]
    return None


def _lines_of_json(text: str, path: Path) -> list[Line] | None:
    """The lines of a JSON blend. None: the text is not JSON, but perhaps our list."""
    is_blend = text.lstrip()[:1] in ("{", "[")
    if not is_blend and not _is_bare_value(text, path):
        return None
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix != ".json":
            return None
        raise FileListError(
            f"{path}: not JSON ({visible(str(error))}), expected a list of shards in it"
        ) from error
    if isinstance(content, dict):
        content = _one_list(cast("dict[str, Any]", content), path)
    words = _words_of_json(content, path)
    if _has_weights(words):
        return _weighted_lines(words, path)
    number = next((word for word in words if _is_number(word)), None)
    if number is not None:
        raise FileListError(
            f"{path}: found the number {number}, expected a prefix. A JSON blend is a "
            f"list of prefixes, or of weights and prefixes in turn."
        )
    return [Line(f"{path}", _found_prefix(word, path)) for word in words]


def _is_bare_value(text: str, path: Path) -> bool:
    """Whether a text is null, true, false or a number, and no shard has this name."""
    word = text.strip()
    is_value = re.fullmatch(r"null|true|false|-?\d{1,20}(\.\d{1,20})?", word) is not None
    places = [path_of(place) for place in _places(word, path)] if is_value else []
    return is_value and not any(path_of(f"{p}.idx").exists() or p.is_dir() for p in places)


def _check_corpora(lines: Sequence[Line], text: str, path: Path) -> None:
    """Check that no corpus is a word of a cut or malformed blend.

    Unless quoted, a third word is a mistake if it is a fraction after the only shard, or the
    path of a shard that no line names.
    """
    named = {line.path for line in lines}
    first_of = {line.corpus: line for line in reversed(lines) if line.corpus is not None}
    for corpus, line in first_of.items():
        reason = None
        if len(lines) == 1 and _is_fraction(corpus):
            reason = (
                f"found the number {corpus} after the only shard. If it is the weight of another "
                f"shard, add its prefix"
            )
        elif "/" in corpus and _is_left_out(_places(corpus, path), named):
            reason = (
                f"found the shard {corpus} in place of a corpus, and no line names this shard. To "
                f"read it, give it a line WEIGHT PREFIX of its own"
            )
        if reason and f'"{corpus}"' not in text and f"'{corpus}'" not in text:
            raise FileListError(
                f"{line.where}: {reason}; if it is the name of the corpus, quote it."
            )


def _is_left_out(prefixes: Sequence[str], named: Set[str]) -> bool:
    exists = any(path_of(f"{prefix}.idx").exists() for prefix in prefixes)
    return exists and named.isdisjoint(prefixes)


def _is_fraction(word: str) -> bool:
    """Whether a word is a number in decimal notation, which is not a count."""
    return _is_number(word) and ("." in word or "e-" in word.lower())


def _one_list(splits: dict[str, Any], path: Path) -> Any:
    """The list of all splits; BlendTitan cuts the splits from the documents of one list."""
    unknown = [key for key in splits if key not in SPLITS]
    if unknown or not splits.get("train"):
        raise FileListError(
            f"{path}: found the keys {', '.join(splits) or 'none'}, expected a list of shards "
            f"under train, and no keys but {', '.join(SPLITS)}"
        )
    for split in SPLITS[1:]:
        if splits.get(split) and splits[split] != splits["train"]:
            raise FileListError(
                f"{path}: {split} lists other shards than train. BlendTitan cuts splits from the "
                f"documents of one list: list all shards in train, and set blendcorpus.split; or "
                f"omit the shards of {split}, and evaluate on them in a separate run."
            )
    return splits["train"]


def _words_of_json(content: Any, path: Path) -> list[str]:
    if not isinstance(content, list) or not content:
        found = "an empty list" if content == [] else _shown(content)
        raise FileListError(
            f"{path}: found {found}, expected a list of shards: prefixes, or weights and prefixes "
            f"in turn"
        )
    items = cast("list[Any]", content)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)) or item == "":
            raise FileListError(f"{path}: found {_shown(item)}, expected a weight or a prefix")
    return [str(item) for item in items]


def _shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _weighted_lines(words: Sequence[str], path: Path) -> list[Line]:
    lines: list[Line] = []
    for weight, prefix in zip(words[::2], words[1::2], strict=True):
        where = f"{path}: {prefix}"
        try:
            check_weight(float(weight), where=where)
        except ConfigError as error:
            raise FileListError(str(error)) from None
        lines.append(Line(where, _found_prefix(prefix, path), float(weight)))
    return lines


def _found_prefix(prefix: str, path: Path) -> str:
    """A prefix as a path, relative to the list's folder or, as in Megatron, the current one."""
    beside, here = _places(prefix, path)
    is_beside, is_here = (path_of(f"{place}.idx").exists() for place in (beside, here))
    is_twice = is_beside and is_here and beside != here
    if is_twice and not os.path.samefile(f"{beside}.idx", f"{here}.idx"):
        raise FileListError(
            f"{path}: {prefix} is a shard in the folder of the list and in the current folder, "
            f"from which Megatron-LM reads it. Give its absolute path."
        )
    return here if is_here else beside


def _places(prefix: str, path: Path) -> tuple[str, str]:
    """Possible paths of a prefix: relative to the list's folder and to the working directory."""
    if url := url_of(prefix):
        return url, url
    beside = os.path.normpath(os.path.join(path.parent, prefix))
    return url_of(beside) or beside, os.path.abspath(prefix)


def _has_weights(words: Sequence[str]) -> bool:
    return len(words) % 2 == 0 and bool(words) and all(map(_is_number, words[::2]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
