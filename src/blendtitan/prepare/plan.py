"""What becomes of which input: shards, and the jobs that make them, before any work starts.

Inputs are files; a file and a key become a shard; a job is a range of the file, done in one go.
"""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.jsonl import COMPRESSED
from blendtitan.storage.writer import remove_file_partials, write_atomically

PARQUET = ".parquet"

SUFFIXES = (".jsonl", ".json", *COMPRESSED, PARQUET)
"""What the names of input files end in. ``.json`` files are read as JSON lines too."""

WORK_FOLDER = ".blendtitan"
"""Below the output: the plan, the parts of unfinished shards, the records of finished ones."""

REJECTS_SUFFIX = ".rejects.jsonl"

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file as it was found: another size or time of change is another input."""

    path: Path
    num_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "InputFile":
        """The file at a path, as it is now.

        Raises:
            InputError: It cannot be read.
        """
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        return cls(path, status.st_size, status.st_mtime_ns)

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells this input from others and from what it was before."""
        path = os.path.abspath(self.path)
        return {"input": path, "num_bytes": self.num_bytes, "mtime_ns": self.mtime_ns}


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to make, of the texts under one key of one input file."""

    input: InputFile
    key: str
    prefix: Path

    work_prefix: Path
    """What the names of its files in the work folder begin with."""

    @property
    def parts_folder(self) -> Path:
        """Folder of the parts that finished jobs leave, until they are joined."""
        return Path(f"{self.work_prefix}.parts")

    @property
    def record_path(self) -> Path:
        """File that says what the finished shard was made of."""
        return Path(f"{self.work_prefix}.jsonl")

    @property
    def rejects_path(self) -> Path:
        """File that lists the texts that were left out."""
        return Path(f"{self.prefix}{REJECTS_SUFFIX}")


@dataclass(frozen=True, slots=True)
class Job:
    """A range of an input file, done by one process in one go."""

    shard: Shard

    start: int
    """First byte; in a Parquet file, first row group."""

    stop: int
    """Byte, or row group, after the last. Lines that start before it are the job's."""

    num_bytes: int
    """Bytes of the file to read."""

    def path(self, suffix: str) -> Path:
        """A file of this job in the work folder."""
        return self.shard.parts_folder / f"{self.start:015d}-{self.stop:015d}.{suffix}"


Plan = Mapping[Shard, tuple[Job, ...]]
"""The jobs of each shard, both in the order of the inputs."""


def plan_shards(
    inputs: Sequence[Path], output: Path, *, keys: Sequence[str], corpus: str | None = None
) -> tuple[Shard, ...]:
    """Shards for files, folders of files and patterns, in the order given, sorted by path.

    A file below a folder, or below the fixed part of a pattern, keeps its path relative to it,
    so that the first-level subfolders of ``output`` are corpora; a file named by itself goes
    directly to ``output``.

    Args:
        inputs: Files named as ``SUFFIXES`` says, folders that are searched for them, or patterns
            with ``*``, ``**``, ``?`` and ``[]``.
        output: Folder of the shards. Several keys have a subfolder each.
        keys: Fields or columns that hold the texts.
        corpus: Subfolder of ``output`` to put everything in.

    Raises:
        ConfigError: Two files would become the same shard, or ``corpus``, or one of several
            keys, is no folder name.
        InputError: An input is missing, or of another kind, or a folder holds no files.
    """
    if not keys or len(set(keys)) < len(keys):
        raise ConfigError(f"the keys are {', '.join(keys) or 'none'}, expected different names")
    for name in [*([] if corpus is None else [corpus]), *(keys if len(keys) > 1 else [])]:
        if name in ("", ".", "..", WORK_FOLDER) or "/" in name:
            raise ConfigError(f"{name!r} is to be a folder, expected the name of one folder")
    files = [
        (InputFile.of(file), relative.parent / _stem(relative.name))
        for path in inputs
        for file, relative in _files(path)
    ]
    shards = tuple(
        Shard(file, key, output / below / stem, output / WORK_FOLDER / below / stem)
        for key in keys
        for below in (Path(key if len(keys) > 1 else "", corpus or ""),)
        for file, stem in files
    )
    _check_prefixes_differ(shards)
    return shards


def plan_jobs(shard: Shard, job_bytes: int) -> tuple[Job, ...]:
    """The jobs of a shard: together they read its input once. The shard depends on no range.

    Raises:
        InputError: The file is no Parquet file, as its name says it is.
    """
    file = shard.input
    if file.path.suffix == PARQUET:
        # Imported where it is needed: it takes longer than all else together.
        from blendtitan.prepare.parquet import row_group_runs

        runs = row_group_runs(file.path, job_bytes)
        return tuple(Job(shard, *run) for run in runs) or (Job(shard, 0, 0, 0),)
    # What is compressed as one stream can only be read from its beginning.
    step = file.num_bytes if file.path.suffix in COMPRESSED else job_bytes
    if file.num_bytes <= step:
        return (Job(shard, 0, file.num_bytes, file.num_bytes),)
    starts = range(0, file.num_bytes, step)
    stops = (min(start + step, file.num_bytes) for start in starts)
    return tuple(Job(shard, a, b, b - a) for a, b in zip(starts, stops, strict=True))


def write_plan(path: Path, plan: Plan, settings: Mapping[str, str | int]) -> None:
    """Write down, as JSON lines, the settings and every job, and what they depend on."""
    lines = [orjson.dumps(settings)]
    for shard, jobs in plan.items():
        identity = shard.input.identity | {"key": shard.key, "prefix": str(shard.prefix)}
        lines += [orjson.dumps(identity | {"start": j.start, "stop": j.stop}) for j in jobs]
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_file_partials(path)
    write_atomically(path, b"\n".join([*lines, b""]))


def _files(path: Path) -> Iterator[tuple[Path, Path]]:
    """Each input file at ``path``, and its path relative to the folder that was named."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_input(file))
        if not found:
            raise InputError(f"{path}: holds no file named {_expected_names()}")
        yield from ((file, file.relative_to(path)) for file in found)
    elif path.exists():
        if not _is_input(path):
            raise InputError(f"{path}: expected a folder, or a file named {_expected_names()}")
        yield path, Path(path.name)
    elif _WILDCARDS.isdisjoint(str(path)):
        raise InputError(f"{path}: there is no such file or folder")
    else:
        found = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)))
        found = [file for file in found if _is_input(file)]
        if not found:
            raise InputError(f"{path}: matches no file named {_expected_names()}")
        fixed = _fixed_part(path)
        yield from ((file, file.relative_to(fixed)) for file in found)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first wildcard."""
    parts = pattern.parts[:-1]
    first = next((i for i, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts))
    return Path(*parts[:first])


def _is_input(path: Path) -> bool:
    # The output may lie in a folder of inputs.
    is_output = WORK_FOLDER in path.parts or path.name.endswith(REJECTS_SUFFIX)
    return path.suffix in SUFFIXES and not is_output and path.is_file()


def _expected_names() -> str:
    return " or ".join(f"*{suffix}" for suffix in SUFFIXES)


def _stem(name: str) -> str:
    for suffix in (*COMPRESSED, ".jsonl", ".json", PARQUET):
        name = name.removesuffix(suffix)
    return name


def _check_prefixes_differ(shards: Sequence[Shard]) -> None:
    planned: dict[Path, Path] = {}
    for shard in shards:
        first = planned.setdefault(shard.prefix, shard.input.path)
        if first is not shard.input.path:
            raise ConfigError(
                f"{first} and {shard.input.path} would both become the shard {shard.prefix}. "
                f"Rename one, or tokenise them into folders of their own."
            )
