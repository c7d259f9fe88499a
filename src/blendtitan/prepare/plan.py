"""Which input file becomes which shard: decided, and checked, before any work starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.jsonl import SUFFIXES


@dataclass(frozen=True, slots=True)
class Job:
    """One input file and the prefix of the shard that it becomes."""

    input_path: Path
    prefix: Path


def plan_jobs(
    inputs: Sequence[Path], output: Path, *, corpus: str | None = None
) -> tuple[Job, ...]:
    """Jobs for files and folders of files, in the order given, folders sorted by path.

    A file below a folder keeps its path relative to that folder, so that the first-level
    subfolders of ``output`` are corpora; a file named by itself goes directly to ``output``.

    Args:
        inputs: Files, or folders that are searched for files named as ``SUFFIXES`` says.
        output: Folder of the shards.
        corpus: Subfolder of ``output`` to put everything in.

    Raises:
        ConfigError: Two files would become the same shard, or ``corpus`` is no folder name.
        InputError: An input is missing, or of another kind, or a folder holds no files.
    """
    if corpus is not None and (corpus in ("", ".", "..") or "/" in corpus):
        raise ConfigError(f"corpus is {corpus!r}, expected the name of one folder")
    root = output if corpus is None else output / corpus
    jobs = tuple(
        Job(file, root / relative.parent / _stem(relative.name))
        for path in inputs
        for file, relative in _files(path)
    )
    _check_prefixes_differ(jobs)
    return jobs


def _files(path: Path) -> Iterator[tuple[Path, Path]]:
    """Each input file at ``path``, and its path relative to the folder that was named."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_input(file))
        if not found:
            raise InputError(f"{path}: holds no file named {_expected_names()}")
        yield from ((file, file.relative_to(path)) for file in found)
    elif not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    elif not _is_input(path):
        raise InputError(f"{path}: expected a folder, or a file named {_expected_names()}")
    else:
        yield path, Path(path.name)


def _is_input(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file()


def _expected_names() -> str:
    return " or ".join(f"*{suffix}" for suffix in SUFFIXES)


def _stem(name: str) -> str:
    for suffix in (".gz", ".zst", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return name


def _check_prefixes_differ(jobs: Sequence[Job]) -> None:
    planned: dict[Path, Path] = {}
    for job in jobs:
        first = planned.setdefault(job.prefix, job.input_path)
        if first is not job.input_path:
            raise ConfigError(
                f"{first} and {job.input_path} would both become the shard {job.prefix}. Rename "
                f"one, or tokenise them into folders of their own."
            )
