"""What becomes of which input: shards, and the jobs that make them, before any work starts.

Inputs are files; a file and a key become a shard; a job is a range of the file, done in one go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import orjson

from blendtitan.errors import ConfigError
from blendtitan.prepare.file_formats import DEFAULT_OPTIONS, ReadOptions, without_suffixes
from blendtitan.prepare.input_file import REJECTS_SUFFIX, WORK_FOLDER, InputFile
from blendtitan.prepare.inputs import find_inputs
from blendtitan.prepare.jsonl import is_unicode
from blendtitan.prepare.texts import is_cut
from blendtitan.storage.atomic_files import remove_file_partials, write_atomically, writing
from blendtitan.storage.list_forms import corpus_in_folder
from blendtitan.visible import visible

PARTS_SUFFIX = ".parts"
"""What the name of a folder of parts ends in."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to make, of the texts under one key of one input file."""

    input: InputFile
    key: str
    prefix: Path

    work_prefix: Path
    """What the names of its files in the work folder begin with."""

    options: ReadOptions = DEFAULT_OPTIONS
    """How texts are taken from the input."""

    @property
    def source(self) -> dict[str, str | int]:
        """What tells the texts of this input from others and from what they were before."""
        identity = self.input.identity
        is_split = self.options.txt == "line" and self.input.format.kind == "text"
        return identity | ({"txt": "line"} if is_split else {})

    @property
    def parts_folder(self) -> Path:
        """Folder of the parts that finished jobs leave, until they are joined."""
        return Path(f"{self.work_prefix}{PARTS_SUFFIX}")

    @property
    def failure_path(self) -> Path:
        """File that says, while a command runs, why the input cannot be read."""
        return self.parts_folder / "failed"

    @property
    def placing_path(self) -> Path:
        """File that is there from the moment at which the shard is put in place."""
        return self.parts_folder / "placing"

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


PLAN_FILE = "plan.ndjson"
"""In the work folder, for people to read. No record has a name that ends so."""

Plan = Mapping[Shard, tuple[Job, ...]]
"""The jobs of each shard, both in the order of the inputs."""


def plan_shards(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    keys: Sequence[str],
    corpus: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    skip_unknown: bool = False,
) -> tuple[Shard, ...]:
    """Shards for files, folders of files and patterns, in the order given, sorted by path.

    A file below a folder, or below the fixed part of a pattern, keeps its path relative to it,
    so that the first-level subfolders of ``output`` are corpora; a file named by itself goes
    directly to ``output``.

    Args:
        inputs: Files named as ``SUFFIXES`` says, folders that are searched for them, or patterns
            with ``*``, ``**``, ``?`` and ``[]``; paths, or URLs that fsspec reads.
        output: Folder of the shards. Several keys have a subfolder each.
        keys: Fields or columns that hold the texts; ``CORPUS=KEY`` is for one corpus.
        corpus: Subfolder of ``output`` to put everything in.
        options: How texts are taken from files.
        skip_unknown: Warn of files that cannot be read or are of another format.

    Raises:
        ConfigError: Two files would become the same shard, or ``corpus``, or one of several
            keys, is no folder name.
        InputError: An input is missing, cannot be read or is of another format, or a folder holds
            no input.
    """
    for name in keys if corpus is None else [*keys, corpus]:
        if not is_unicode(name):
            raise ConfigError(f"{name!r} is a key or corpus, expected a name in UTF-8")
    keys, key_of = _keys_by_corpus(keys)
    if not keys or len(set(keys)) < len(keys):
        raise ConfigError(f"the keys are {', '.join(keys) or 'none'}, expected different names")
    for name in [*([] if corpus is None else [corpus]), *(keys if len(keys) > 1 else [])]:
        if name in ("", ".", "..", WORK_FOLDER) or "/" in name:
            raise ConfigError(f"{name!r} is to be a folder, expected the name of one folder")
    files = [
        (file, relative.parent / without_suffixes(relative.name))
        for location in inputs
        for file, relative in find_inputs(location, skip_unknown=skip_unknown)
    ]
    shards = tuple(
        Shard(file, key, output / below / stem, output / WORK_FOLDER / below / stem, options)
        for key in keys
        for below in (Path(key if len(keys) > 1 else "", corpus or ""),)
        for file, stem in files
    )
    _check_prefixes_differ(shards)
    return _with_own_keys(shards, key_of, output) if key_of else shards


def _keys_by_corpus(keys: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
    """The keys of all corpora, and those of single ones, which are given as ``CORPUS=KEY``.

    Raises:
        ConfigError: Both several keys and keys of single corpora are given, or two of one corpus.
    """
    key_of: dict[str, str] = {}
    for corpus, _, key in (key.partition("=") for key in keys if "=" in key):
        if (first := key_of.setdefault(corpus, key)) != key:
            raise ConfigError(
                f"the keys of the corpus {corpus} are {first} and {key}, expected one. Give the "
                f"other in a command of its own, with another --output."
            )
    others = [key for key in keys if "=" not in key]
    if key_of and len(others) > 1:
        raise ConfigError(
            f"the keys are {', '.join(keys)}, expected at most one without a corpus, which is "
            f"that of all others. Give the others in commands of their own."
        )
    return others or (["text"] if key_of else []), key_of


def _with_own_keys(
    shards: Sequence[Shard], key_of: Mapping[str, str], output: Path
) -> tuple[Shard, ...]:
    """Shards of the corpora that have keys of their own, with these.

    Raises:
        ConfigError: There is no such corpus.
    """
    corpora = [corpus_in_folder(shard.prefix, output) for shard in shards]
    missing = key_of.keys() - set(corpora)
    if missing:
        raise ConfigError(
            f"a key is given for {', '.join(sorted(missing))}, found the corpora "
            f"{', '.join(sorted(set(corpora)))}"
        )
    return tuple(
        replace(shard, key=key_of.get(corpus, shard.key))
        for shard, corpus in zip(shards, corpora, strict=True)
    )


def plan_jobs(shard: Shard, job_bytes: int) -> tuple[Job, ...]:
    """The jobs of a shard: together they read its input once. The shard depends on no range.

    Raises:
        InputError: The file is no Parquet file, as its name says it is.
    """
    file = shard.input
    if file.format.kind == "parquet":
        # Imported where it is needed: it takes longer than all else together.
        from blendtitan.prepare.parquet import row_group_runs

        runs = row_group_runs(file, job_bytes)
        return tuple(Job(shard, *run) for run in runs) or (Job(shard, 0, 0, 0),)
    num_jobs = (
        1
        if file.num_bytes == 0 or not is_cut(file, shard.options)
        else -(-file.num_bytes // job_bytes)
    )
    # Of equal size, so that no process ends with much less than the others.
    cuts = [file.num_bytes * n // num_jobs for n in range(num_jobs + 1)]
    return tuple(Job(shard, a, b, b - a) for a, b in pairwise(cuts))


def text_per_worker(plan: Plan, num_workers: int) -> int:
    """About how many bytes of text each of some workers is to encode."""
    total = sum(
        job.num_bytes * shard.input.format.text_per_byte
        for shard, jobs in plan.items()
        for job in jobs
    )
    return total // num_workers


def write_plan(output: Path, plan: Plan, settings: Mapping[str, str | int]) -> None:
    """Write down, as JSON lines, the settings and every job, and what they depend on."""
    lines = [orjson.dumps(settings)]
    for shard, jobs in plan.items():
        identity = shard.source | {"key": shard.key, "prefix": visible(str(shard.prefix))}
        lines += [orjson.dumps(identity | {"start": j.start, "stop": j.stop}) for j in jobs]
    path = output / WORK_FOLDER / PLAN_FILE
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    remove_file_partials(path)
    write_atomically(path, b"\n".join([*lines, b""]))


def _check_prefixes_differ(shards: Sequence[Shard]) -> None:
    planned: dict[Path, str] = {}
    for shard in shards:
        location = shard.input.location
        first = planned.setdefault(shard.prefix, location)
        if first is not location:
            raise ConfigError(
                f"{first} and {location} would both become the shard {shard.prefix}. "
                f"Rename one, or tokenise them into folders of their own."
            )
