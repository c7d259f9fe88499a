"""The corpora that ``blendtitan init`` finds in text, and the tables that it shows of them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.prepare.input_file import InputFile, is_url, without_suffixes
from blendtitan.prepare.inputs import WILDCARDS, find_inputs
from blendtitan.start.data import check_corpus_name, expanded
from blendtitan.storage.list_forms import corpus_in_folder
from blendtitan.tables import Table
from blendtitan.visible import some_of, visible_logger

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class FoundCorpus:
    """One corpus that ``init`` found."""

    name: str
    location: str
    files: tuple[InputFile, ...]
    formats: tuple[str, ...]
    """Suffixes of the files, such as ``.jsonl.zst``."""


def corpora_in(text: str) -> list[FoundCorpus]:
    """The corpora of one value of ``--data``, with all their files."""
    name, equals, location = text.partition("=")
    if not equals or "/" in name:
        name, location = "", text
    else:
        check_corpus_name(name, f"--data {text}")
    location = expanded(location)
    files = list(find_inputs(location))
    if not is_url(location):
        location = str(Path(location).absolute())
    first_folders = {relative.parts[0] for _, relative in files if len(relative.parts) > 1}
    is_flat = any(len(relative.parts) == 1 for _, relative in files)
    if name or is_flat or not WILDCARDS.isdisjoint(location):
        if first_folders and not name and WILDCARDS.isdisjoint(location):
            logger.info(
                "%s has files of its own, so it is one corpus, with those of its subfolders (%s)",
                *(location, ", ".join(sorted(first_folders))),
            )
        return [_found(name or _name_of(location), location, files)]
    if not is_url(location):
        _report_empty(Path(location), first_folders)
    return [
        _found(
            folder,
            f"{location.rstrip('/')}/{folder}",
            [(file, relative) for file, relative in files if relative.parts[0] == folder],
        )
        for folder in sorted(first_folders)
    ]


def _report_empty(folder: Path, corpora: Collection[str]) -> None:
    """Warn about subfolders that are no corpora, because they hold no text."""
    folders = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
    empty = [name for name in folders if name not in corpora]
    if empty:
        logger.warning("%s: folders without text are left out: %s", folder, some_of(empty, 20))


def _name_of(location: str) -> str:
    parts = [p for p in PurePosixPath(location).parts if WILDCARDS.isdisjoint(p) and p != "/"]
    return without_suffixes(parts[-1]) if parts else "text"


def _found(name: str, location: str, files: Sequence[tuple[Any, PurePosixPath]]) -> FoundCorpus:
    try:
        check_corpus_name(name, location)
    except ConfigError as error:
        error.add_note("Give the corpus another name: --data NAME=PATH")
        raise
    suffixes = {relative.name[len(without_suffixes(relative.name)) :] for _, relative in files}
    return FoundCorpus(
        name=name,
        location=location,
        files=tuple(file for file, _ in files),
        formats=tuple(sorted(suffixes)),
    )


def corpus_table(found: Sequence[FoundCorpus]) -> Table:
    """The corpora that were found, one in a row."""
    from blendtitan.runs.row_reads import size_of

    rows = [
        (
            c.name,
            f"{len(c.files):,}",
            size_of(sum(f.num_bytes for f in c.files)),
            " ".join(c.formats),
        )
        for c in found
    ]
    return Table(("corpus", "files", "size", "formats"), rows, texts=["formats"])


def shard_table(shards: Mapping[Path, Sequence[Path]]) -> Table:
    """The corpora of folders of shards, one in a row."""
    counts = Counter(
        corpus_in_folder(prefix, folder)
        for folder, prefixes in shards.items()
        for prefix in prefixes
    )
    return Table(("corpus", "shards"), sorted(counts.items()))
