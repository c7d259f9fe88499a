"""Files of rows of ids: Parquet and Arrow files, and folders of MDS and litdata."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blendtitan.errors import ConfigError, InputError
from blendtitan.files import DamagedFileError
from blendtitan.json_files import read_json
from blendtitan.prepare.input_file import InputFile, is_companion
from blendtitan.prepare.inputs import is_output
from blendtitan.prepare.item_files import INDEX, read_index
from blendtitan.prepare.litdata import is_litdata, litdata_files
from blendtitan.prepare.mds import is_mds, mds_files
from blendtitan.prepare.token_rows import (
    ARROW_SUFFIXES,
    RowFile,
    RowSettings,
    arrow_file,
    parquet_file,
)
from blendtitan.storage.writer import DOCS_SUFFIX, SHARD_SUFFIXES

_SUFFIXES = (".parquet", *ARROW_SUFFIXES)
_STATE, _DATA_FILES = "state.json", "_data_files"


class FoundRows(NamedTuple):
    """The files of rows among some inputs."""

    files: list[RowFile]
    others: list[Path]
    """Inputs that hold none, so that they must be shards."""

    left_out: list[Path]
    """Other files below folders with files of rows."""


def find_row_files(inputs: Sequence[Path], settings: RowSettings) -> FoundRows:
    """The files of rows at some paths and in folders, in the order of their names.

    Raises:
        ConfigError: Two of them would become one shard, or a setting does not fit the format.
        InputError: A file cannot be used.
    """
    found = FoundRows([], [], [])
    for path in inputs:
        files = list(_files_of(path, settings))
        found.files.extend(files)
        if not files:
            found.others.append(path)
        elif path.is_dir():
            found.left_out.extend(_left_out(path, {Path(each.file.location) for each in files}))
    _check_names(found.files)
    return found


def _check_names(files: Sequence[RowFile]) -> None:
    taken: dict[Path, RowFile] = {}
    for file in files:
        first = taken.setdefault(file.name, file)
        if first is not file:
            raise ConfigError(
                f"{file.file.location} and {first.file.location} would both become the shard "
                f"{file.name}. Convert them into different folders."
            )


def _files_of(path: Path, settings: RowSettings) -> Iterator[RowFile]:
    if path.is_dir():
        yield from _files_in(path, Path(), frozenset(), settings)
    elif path.suffix.lower() in _SUFFIXES:
        yield _file_of(path, Path(path.stem), settings)


def _files_in(
    folder: Path, name: Path, above: frozenset[str], settings: RowSettings
) -> Iterator[RowFile]:
    """The files below a folder; ``above`` are the real paths of the folders around it."""
    real = os.path.realpath(folder)
    if real in above:
        return
    index_path = folder / INDEX
    if index_path.is_file():
        index = read_index(index_path)
        if is_mds(index):
            yield from mds_files(folder, index, name, settings)
            return
        if is_litdata(index):
            yield from litdata_files(folder, index, name, settings)
            return
    listed = _listed_files(folder / _STATE)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files_in(path, name / path.name, above | {real}, settings)
            continue
        suffix = path.suffix.lower()
        is_cache = suffix in ARROW_SUFFIXES and listed is not None and path.name not in listed
        if suffix in _SUFFIXES and not is_cache and not _is_ours(path):
            yield _file_of(path, name / path.stem, settings)


def _left_out(top: Path, read: set[Path]) -> Iterator[Path]:
    """Files below a folder that are not read, except documentation and converted shards."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and os.path.realpath(Path(folder, each)) not in seen
        )
        siblings = set(names)
        for name in sorted(names):
            path = Path(os.path.abspath(Path(folder, name)))
            is_cache = _STATE in siblings and path.suffix.lower() in ARROW_SUFFIXES
            # The compressed file of MDS may be beside a read one.
            if is_cache or not read.isdisjoint({path, path.with_suffix("")}):
                continue
            is_known = name.startswith(".") or name == INDEX or is_companion(name)
            if not (is_known or _is_ours(path) or _is_of_shard(path, siblings)):
                yield path


def _listed_files(path: Path) -> set[str] | None:
    """The Arrow files of a saved dataset by its ``state.json``; others beside them are caches."""
    if not path.is_file():
        return None
    try:
        files = read_json(path, dict[str, Any]).get(_DATA_FILES)
        return None if files is None else {str(file["filename"]) for file in files}
    except (DamagedFileError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read as the state of a dataset, which lists its Arrow files "
            f"({error}). Save the dataset again, or move this file away."
        ) from error


def _is_ours(path: Path) -> bool:
    prefix = str(path).removesuffix(DOCS_SUFFIX)
    return path.name.endswith(DOCS_SUFFIX) and Path(f"{prefix}.idx").exists()


def _is_of_shard(path: Path, siblings: set[str]) -> bool:
    """Whether a file is of a converted shard; others have no sources of documents."""
    is_shard = path.suffix not in SHARD_SUFFIXES or f"{path.stem}{DOCS_SUFFIX}" in siblings
    return is_shard and is_output(path.name, siblings)


def _file_of(path: Path, name: Path, settings: RowSettings) -> RowFile:
    of_kind = arrow_file if path.suffix.lower() in ARROW_SUFFIXES else parquet_file
    return of_kind(InputFile.of(path), name, settings)
