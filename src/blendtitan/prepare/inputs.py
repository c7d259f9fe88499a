"""Find input files in folders, patterns and stores, and account for every other file."""

import glob
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from blendtitan.errors import InputError
from blendtitan.prepare.input_file import (
    EXPECTED_NAMES,
    REJECTS_SUFFIX,
    WORK_FOLDER,
    InputFile,
    file_kind,
    file_system,
    format_of,
    is_companion,
    is_url,
    path_in_url,
    readable,
)
from blendtitan.prepare.streams import is_unicode
from blendtitan.storage.list_forms import nearest_name
from blendtitan.storage.records import CATALOG_FILE, ENDS_SUFFIX, RECORD_SUFFIX
from blendtitan.storage.writer import DOCS_SUFFIX
from blendtitan.visible import counted, visible_logger

logger = visible_logger(__name__)

WILDCARDS = frozenset("*?[")

_SHOWN_NAMES = 20
_CHECK = "Check the spelling."

# datasets.save_to_disk lists the data files in this file. Other Arrow files beside it are
# caches.
_DATASET_STATE = "state.json"
_DATA_FILES = "_data_files"

# Files that blendtitan writes beside shards. The output may be in a folder of inputs.
_OUTPUT_SUFFIXES = (REJECTS_SUFFIX, RECORD_SUFFIX, ENDS_SUFFIX, ".idx.before-repair")
# Other programs use these names, too, so another file of the shard must be beside them.
_SHARD_SUFFIXES = {".bin": ".idx", ".idx": ".bin", DOCS_SUFFIX: ".idx"}
_PARTIAL = ".partial-"

Inode = tuple[int, int]


def find_inputs(
    location: str | Path, *, skip_unknown: bool = False
) -> Iterator[tuple[InputFile, PurePosixPath]]:
    """Every input file at a path or URL, a folder or a pattern, sorted, with its path below it.

    Links are followed. Hidden files and folders are skipped, and so are documentation and
    checksums; the log gives their number.

    Raises:
        InputError: There is no input or, without ``skip_unknown``, a file or folder cannot be
            read or has an unknown format. The message names all of them.
    """
    text = str(location)
    if not text:
        raise InputError("an input is an empty name, expected the name of a file or folder")
    found = _find_remote(text) if is_url(text) else _find_local(text)
    found.report(text, skip_unknown=skip_unknown)
    if not found.files:
        kind = "holds" if WILDCARDS.isdisjoint(text) else "matches"
        raise InputError(
            f"{text}: {kind} no file named {EXPECTED_NAMES}. Name text in one of these formats."
        )
    for file, relative in sorted(found.files.items(), key=lambda entry: entry[1].parts):
        yield InputFile.of(file), relative


@dataclass(slots=True)
class _Found:
    """The files at a location, by category."""

    top: str
    """Folder that relative paths start from."""

    files: dict[str, PurePosixPath] = field(default_factory=dict)
    companions: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    first_paths: dict[Inode, str] = field(default_factory=dict)

    def add(self, location: str, siblings: set[str]) -> None:
        """Classify a file by its name and the names in its folder."""
        name = PurePosixPath(path_in_url(location)).name
        if is_output(name, siblings):
            return
        if is_companion(name):
            self.companions.add(location)
        elif format_of(name) is None:
            self.problems[location] = "has an unknown format"
        else:
            self.files[location] = _relative(path_in_url(location), path_in_url(self.top))

    def add_local(self, path: str, siblings: set[str], above: tuple[Inode, ...]) -> None:
        """Add a local file, or everything below a folder; ``above`` are the folders around it."""
        name = os.path.basename(path)
        if name.startswith("."):
            if name != WORK_FOLDER:
                self.hidden.add(path)
            return
        try:
            status = os.stat(path)
        except OSError as error:
            target = f"; it is a link to {os.readlink(path)}" if os.path.islink(path) else ""
            self.problems[path] = f"cannot be read ({error.strerror}{target})"
            return
        if stat.S_ISDIR(status.st_mode):
            self.walk(path, above)
            return
        self.add(path, siblings)
        if path in self.files and (problem := self._problem(path, status)):
            del self.files[path]
            self.problems[path] = problem

    def walk(self, folder: str, above: tuple[Inode, ...]) -> None:
        try:
            status = os.stat(folder)
            names = os.listdir(folder)
        except OSError as error:
            self.problems[folder] = f"cannot be searched ({error.strerror})"
            return
        here = (status.st_dev, status.st_ino)
        if here in above:
            # A link back: its content is found without the link.
            self.companions.add(folder)
            return
        for name in sorted(names):
            self.add_local(os.path.join(folder, name), set(names), (*above, here))
        if _DATASET_STATE in names:
            self.check_dataset(folder)

    def _problem(self, path: str, status: os.stat_result) -> str | None:
        if (kind := file_kind(path, status)) != "regular file":
            return f"is a {kind}, expected a regular file"
        if not os.access(path, os.R_OK):
            return "cannot be read (Permission denied)"
        first = self.first_paths.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            logger.warning("%s and %s are the same file: it is read twice", first, path)
        return None

    def report(self, text: str, *, skip_unknown: bool) -> None:
        """Log the files that are not read, or raise if one has a problem."""
        for location in [*self.files]:
            # Records could not name it.
            if not is_unicode(location if is_url(location) else os.path.abspath(location)):
                del self.files[location]
                self.problems[location] = "has a path that is not UTF-8: rename the file or folder"
        if self.problems and not skip_unknown:
            lines = [f"{path}: {reason}" for path, reason in sorted(self.problems.items())]
            number = counted(len(lines), "file or folder", "files or folders")
            top = text if WILDCARDS.isdisjoint(text) else _fixed_part(text)
            raise InputError(
                *lines[:_SHOWN_NAMES],
                f"{text}: {number} cannot be read as text, expected {EXPECTED_NAMES}. Move or "
                f"hide them (.name), or name only the others, as with the pattern "
                f"'{top.rstrip('/')}/**/*.jsonl'.",
            )
        for path, reason in sorted(self.problems.items()):
            logger.warning("skipped: %s: %s", path, reason)
        if self.companions:
            logger.info(
                "%s: skipped, not taken for data: %s",
                text,
                _shown(self.companions, self.top),
            )
        if self.hidden:
            number = counted(len(self.hidden), "hidden file or folder", "hidden files or folders")
            logger.info("%s: %s skipped", text, number)

    def check_datasets(self) -> None:
        suffix = f"/{_DATASET_STATE}"
        for location in [name for name in self.companions if name.endswith(suffix)]:
            self.check_dataset(location.removesuffix(suffix))

    def check_dataset(self, folder: str) -> None:
        """Keep only the Arrow files that the state of a saved dataset lists."""
        state_file = f"{folder}/{_DATASET_STATE}"
        arrow_files = [
            path
            for path in self.files
            if path.rpartition("/")[0] == folder and path.lower().endswith((".arrow", ".feather"))
        ]
        # Other programs have a state.json, too, but rarely beside Arrow files.
        try:
            with InputFile.of(state_file).open() as file:
                state = json.load(file)
            if isinstance(state, dict) and _DATA_FILES not in state:
                return
            listed = {f"{part['filename']}" for part in state[_DATA_FILES]}
        except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError):
            if arrow_files:
                for location in arrow_files:
                    del self.files[location]
                self.companions.discard(state_file)
                self.problems[state_file] = (
                    "is damaged, expected the state of a dataset, which lists the Arrow files that "
                    "hold its rows: save the dataset again, or move this file away"
                )
            return
        for location in arrow_files:
            if location.rpartition("/")[2] not in listed:
                del self.files[location]
                self.companions.add(location)
        for name in listed:
            if "/" in name or name in ("", ".."):
                self.problems[state_file] = f"lists {name!r}, which is outside of its folder"
            elif f"{folder}/{name}" not in self.files:
                self.problems[f"{folder}/{name}"] = f"is missing, but {_DATASET_STATE} lists it"


def _find_local(text: str) -> _Found:
    path = Path(text)
    if path.is_dir():
        found = _Found(text)
        found.walk(str(path), ())
        return found
    if os.path.lexists(path):
        return _single_file(text)
    if WILDCARDS.isdisjoint(text):
        start = "" if path.is_absolute() else f" in {os.getcwd()}, where the command runs"
        raise InputError(
            f"{text}: there is no such file or folder{start}. {nearest_name(path) or _CHECK}"
        )
    found = _Found(_fixed_part(text))
    top = os.stat(found.top or ".") if os.path.isdir(found.top or ".") else None
    above = ((top.st_dev, top.st_ino),) if top else ()
    for match in sorted(glob.glob(text, recursive=True)):
        siblings = set(os.listdir(os.path.dirname(match) or "."))
        found.add_local(match.rstrip("/"), siblings, above)
    found.check_datasets()
    return found


def _single_file(location: str) -> _Found:
    name = PurePosixPath(path_in_url(location)).name
    if is_output(name, {name}) or format_of(name) is None:
        raise InputError(
            f"{location}: expected a folder, or a file named {EXPECTED_NAMES}. If it is in one of "
            f"these formats, rename it; if not, convert it."
        )
    return _Found("", files={location: PurePosixPath(name)})


def _find_remote(url: str) -> _Found:
    with readable(url):
        files, root = file_system(url)
        if not WILDCARDS.isdisjoint(path_in_url(url)):
            found = _Found(_fixed_part(root))
            matches = files.glob(root, detail=True)
            folders = [name for name, info in matches.items() if info["type"] == "directory"]
            names = {*matches} - {*folders}
            names.update(name for folder in folders for name in files.find(folder))
        # Do not ask a web server whether a file is a folder: it would send the whole file.
        elif format_of(path_in_url(url)) or not files.isdir(root):
            return _single_file(url)
        else:
            found = _Found(root)
            names = set(files.find(root))
        _add_remote(found, names)
        full = files.unstrip_protocol
        found.files = {full(name): below for name, below in found.files.items()}
        found.companions = set(map(full, found.companions))
        found.problems = {full(name): reason for name, reason in found.problems.items()}
        found.check_datasets()
        return found


def _add_remote(found: _Found, names: Iterable[str]) -> None:
    """Add files of a store by their names in it."""
    folders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for location in sorted(names):
        path = PurePosixPath(path_in_url(location))
        # Listings of web servers link to themselves in other sort orders.
        if not path_in_url(location).endswith("/"):
            folders[str(path.parent)][path.name] = location
    for siblings in folders.values():
        for location in siblings.values():
            parts = _relative(path_in_url(location), path_in_url(found.top)).parts
            if WORK_FOLDER in parts:
                continue
            if any(part.startswith(".") for part in parts if part != ".."):
                found.hidden.add(location)
            else:
                found.add(location, set(siblings))


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first wildcard."""
    before = pattern[: min(pattern.find(mark) for mark in WILDCARDS if mark in pattern)]
    return before.rpartition("/")[0] or ("/" if before.startswith("/") else "")


def is_output(name: str, siblings: set[str]) -> bool:
    """Whether blendtitan wrote a file."""
    for suffix, other in _SHARD_SUFFIXES.items():
        if name.endswith(suffix) and f"{name.removesuffix(suffix)}{other}" in siblings:
            return True
    return name.endswith(_OUTPUT_SUFFIXES) or name == CATALOG_FILE or _PARTIAL in name


def _relative(path: str, folder: str) -> PurePosixPath:
    root = "/" if path.startswith("/") else "."
    return PurePosixPath(os.path.relpath(path, folder or root))


def _shown(locations: set[str], top: str) -> str:
    names = sorted(os.path.relpath(location, top or ".") for location in locations)
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")
