"""Blends as Megatron-LM's files write them, read as the lines of a file list.

``--data-args-path`` names a text of words, however they are broken into lines: either
``WEIGHT PREFIX WEIGHT PREFIX ...`` or ``PREFIX PREFIX ...``. ``--per-split-data-args-path`` names a
JSON object of such lists, one per split.

Source: ``get_blend_from_list`` and ``get_blend_and_blend_per_split`` of Megatron-LM.
"""

import json
import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, cast

from blendtitan.config import check_weight
from blendtitan.errors import ConfigError, FileListError
from blendtitan.storage.list_line import Line
from blendtitan.visible import visible

_SPLITS = ("train", "valid", "test")


def lines_of_words(words: Sequence[str], path: Path) -> list[Line] | None:
    """The lines of a ``--data-args-path`` file. None: the words are no such file.

    Words without weights are prefixes only if each of them is a shard: they may be a path with
    spaces.

    Raises:
        FileListError: A weight or a path cannot be used.
    """
    if len(words) % 2 == 0 and words and all(map(_is_number, words[::2])):
        return _lines(words, path)
    prefixes = [_found(word, path) for word in words]
    if len(words) > 1 and all(os.path.exists(f"{prefix}.idx") for prefix in prefixes):
        return [Line(f"{path}", prefix) for prefix in prefixes]
    return None


def lines_of_json(text: str, path: Path) -> list[Line] | None:
    """The lines of a JSON blend. None: the text is no JSON, but perhaps a list of ours.

    Raises:
        FileListError: The blend cannot be used.
    """
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
    words = _words(content, path)
    has_weights = len(words) % 2 == 0 and all(map(_is_number, words[::2]))
    if has_weights:
        return _lines(words, path)
    number = next((word for word in words if _is_number(word)), None)
    if number is not None:
        raise FileListError(
            f"{path}: found the number {number} where a prefix was expected. A JSON blend is a "
            f"list of prefixes, or of weights and prefixes in turn."
        )
    return [Line(f"{path}", _found(word, path)) for word in words]


def _is_bare_value(text: str, path: Path) -> bool:
    """Whether a text is null, true, false or a number, and no shard has this name."""
    word = text.strip()
    is_value = word in ("null", "true", "false") or (len(word) < 40 and _is_json_number(word))
    return is_value and not any(
        os.path.exists(f"{prefix}.idx") or os.path.isdir(prefix) for prefix in _places(word, path)
    )


def _is_json_number(word: str) -> bool:
    try:
        return isinstance(json.loads(word), (int, float))
    except ValueError:
        return False


def check_corpora(lines: Sequence[Line], text: str, path: Path) -> None:
    """Check that no corpus in a list of ours is a word of a blend that was cut, or is malformed.

    A third word is the name of a corpus, and may be any. Unless it is quoted, it is taken for a
    mistake where it is a fraction after the only shard, or the path of a shard that no line names.

    Raises:
        FileListError: A corpus is.
    """
    named = {line.path for line in lines}
    first_of = {line.corpus: line for line in reversed(lines) if line.corpus is not None}
    for corpus, line in first_of.items():
        reason = None
        if len(lines) == 1 and is_fraction(corpus):
            reason = (
                f"found the number {corpus} after the only shard. If it is the weight of another "
                f"shard, add its prefix"
            )
        elif "/" in corpus and _is_left_out(_places(corpus, path), named):
            reason = (
                f"found the shard {corpus} in place of a corpus, and no line names this shard. If "
                f"it is to be read, give it a line WEIGHT PREFIX of its own"
            )
        if reason and f'"{corpus}"' not in text and f"'{corpus}'" not in text:
            raise FileListError(
                f"{line.where}: {reason}; if it is the name of the corpus, quote it."
            )


def _is_left_out(prefixes: Sequence[str], named: Set[str]) -> bool:
    exists = any(os.path.exists(f"{prefix}.idx") for prefix in prefixes)
    return exists and named.isdisjoint(prefixes)


def is_fraction(word: str) -> bool:
    """Whether a word is a number that nobody counts with."""
    return _is_number(word) and ("." in word or "e-" in word.lower())


def _one_list(splits: dict[str, Any], path: Path) -> Any:
    """The list of all splits, which are cut from the documents of one list here."""
    unknown = [key for key in splits if key not in _SPLITS]
    if unknown or not splits.get("train"):
        raise FileListError(
            f"{path}: found the keys {', '.join(splits) or 'none'}, expected a list of shards as "
            f"train, and no others than {', '.join(_SPLITS)}"
        )
    for split in _SPLITS[1:]:
        if splits.get(split) and splits[split] != splits["train"]:
            raise FileListError(
                f"{path}: {split} names other shards than train. Splits are cut from the documents "
                f"of one list here: name all shards in train, and set blendcorpus.split; or leave "
                f"the shards of {split} out, and evaluate on them in a run of their own."
            )
    return splits["train"]


def _words(content: Any, path: Path) -> list[str]:
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
    """A value as JSON has it, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _lines(words: Sequence[str], path: Path) -> list[Line]:
    lines: list[Line] = []
    for weight, prefix in zip(words[::2], words[1::2], strict=True):
        where = f"{path}: {prefix}"
        try:
            check_weight(float(weight), where=where)
        except ConfigError as error:
            raise FileListError(str(error)) from None
        lines.append(Line(where, _found(prefix, path), float(weight)))
    return lines


def _found(prefix: str, path: Path) -> str:
    """A prefix as a path. A relative one starts in the list's folder, or as Megatron takes it.

    Raises:
        FileListError: There is such a shard in both folders.
    """
    beside, here = _places(prefix, path)
    is_beside, is_here = os.path.exists(f"{beside}.idx"), os.path.exists(f"{here}.idx")
    if is_beside and is_here and not os.path.samefile(f"{beside}.idx", f"{here}.idx"):
        raise FileListError(
            f"{path}: {prefix} is a shard in the folder of the list and in the present folder, "
            f"from which Megatron-LM reads it. Give its absolute path."
        )
    return here if is_here else beside


def _places(prefix: str, path: Path) -> tuple[str, str]:
    """Where a prefix may be: from the list's folder, and from the present one."""
    return os.path.normpath(os.path.join(path.parent, prefix)), os.path.abspath(prefix)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
