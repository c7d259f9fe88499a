"""The plan of a command: its shards, their inputs and their jobs.

Inputs are files. A file and a key make a shard. A job is a range of the file, done in one go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.files import url_of
from blendtitan.prepare.input_file import (
    DEFAULT_OPTIONS,
    REJECTS_SUFFIX,
    WORK_FOLDER,
    InputFile,
    ReadOptions,
    without_suffixes,
    work_folder,
)
from blendtitan.prepare.inputs import find_inputs
from blendtitan.prepare.streams import is_unicode
from blendtitan.prepare.texts import is_cut
from blendtitan.storage.list_forms import corpus_in_folder

PARTS_SUFFIX = ".parts"
"""Ending of the name of a folder of parts."""

RECORD_SUFFIX = ".jsonl"
"""Ending of the name of a record."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to make, from the texts under one key of one input file."""

    input: InputFile
    key: str
    prefix: Path

    work_prefix: Path
    """Start of the names of its files in the work folder."""

    options: ReadOptions = DEFAULT_OPTIONS

    stored_record: str = ""
    """URL of the copy of its record. Empty: the output is local."""

    @property
    def local_prefix(self) -> Path:
        """Start of the names of its files while they are made; elsewhere, if they are uploaded."""
        return self.parts_folder / "shard" if self.stored_record else self.prefix

    @property
    def source(self) -> dict[str, str | int]:
        """The identity of the texts of this input, different for its earlier versions."""
        is_split = self.options.txt == "line" and self.input.format.kind == "text"
        return self.input.identity | ({"txt": "line"} if is_split else {})

    @property
    def parts_folder(self) -> Path:
        """Folder of the parts that finished jobs leave until they are joined."""
        return Path(f"{self.work_prefix}{PARTS_SUFFIX}")

    @property
    def failure_path(self) -> Path:
        """File that holds, while a command runs, the error that makes the input unreadable."""
        return self.parts_folder / "failed"

    @property
    def placing_path(self) -> Path:
        """File that exists once the shard is being put in place."""
        return self.parts_folder / "placing"

    @property
    def record_path(self) -> Path:
        """Record of the inputs and settings of the finished shard."""
        return Path(f"{self.work_prefix}{RECORD_SUFFIX}")

    @property
    def rejects_path(self) -> Path:
        """List of the rejected texts, which is uploaded if the shard is."""
        if self.stored_record:
            return Path(f"{self.work_prefix}.rejects")
        return Path(f"{self.prefix}{REJECTS_SUFFIX}")


@dataclass(frozen=True, slots=True)
class Job:
    """A range of an input file that one process handles in one go."""

    shard: Shard

    start: int
    """First byte; in a Parquet file, first row group."""

    stop: int
    """The byte or row group after the last. Lines that start before it belong to the job."""

    num_bytes: int

    def path(self, suffix: str) -> Path:
        """A file of this job in the work folder."""
        return self.shard.parts_folder / f"{self.start:015d}-{self.stop:015d}.{suffix}"


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
    """The shards for files, folders of files and patterns, in the order given, sorted by path.

    A file below a folder, or below the fixed part of a pattern, keeps its path relative to it.
    So the first-level subfolders of ``output`` are corpora. A file named by itself goes directly
    to ``output``.

    Args:
        inputs: Files, folders, or patterns with ``*``, ``**``, ``?`` and ``[]``; paths, or URLs
            that fsspec reads.
        output: Folder of the shards. Several keys have a subfolder each.
        keys: Fields or columns that hold the texts; ``CORPUS=KEY`` is for one corpus.
        corpus: Subfolder of ``output`` for everything.
        options: Settings for reading texts.
        skip_unknown: Warn about files that cannot be read or have another format.

    Raises:
        ConfigError: Two files would become the same shard, or ``corpus`` or one of several keys
            is not a folder name.
        InputError: An input is missing, cannot be read or has another format, or a folder holds
            no input.
    """
    for name in keys if corpus is None else [*keys, corpus]:
        if not is_unicode(name):
            raise ConfigError(f"{name!r} is a key or corpus, expected a name in UTF-8")
    keys, key_of = keys_by_corpus(keys)
    if not keys or len(set(keys)) < len(keys):
        raise ConfigError(f"the keys are {', '.join(keys) or 'none'}, expected different names")
    for name in [*([] if corpus is None else [corpus]), *(keys if len(keys) > 1 else [])]:
        if name in ("", ".", "..", WORK_FOLDER) or "/" in name:
            raise ConfigError(
                f"{name!r} would be the name of a subfolder, expected a valid folder name"
            )
    files = [
        (file, relative.parent / without_suffixes(relative.name))
        for location in inputs
        for file, relative in find_inputs(location, skip_unknown=skip_unknown)
    ]
    work = work_folder(output)
    shards = tuple(
        Shard(
            *(file, key, output / below / stem, work / below / stem, options),
            stored_record=stored_record(output, work / below / f"{stem}{RECORD_SUFFIX}"),
        )
        for key in keys
        for below in (Path(key if len(keys) > 1 else "", corpus or ""),)
        for file, stem in files
    )
    planned: dict[Path, str] = {}
    for shard in shards:
        location = shard.input.location
        first = planned.setdefault(shard.prefix, location)
        if first is not location:
            raise ConfigError(
                f"{first} and {location} would both become the shard {shard.prefix}. "
                f"Rename one, or tokenise them into different folders."
            )
    return _with_own_keys(shards, key_of, output) if key_of else shards


def stored_record(output: Path, record_path: Path) -> str:
    """URL of the copy of a record in object storage. Empty: the output is local."""
    url = url_of(output)
    return f"{url}/{WORK_FOLDER}/{record_path.relative_to(work_folder(output))}" if url else ""


def keys_by_corpus(keys: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
    """The keys of all corpora, and those of single corpora, which are given as ``CORPUS=KEY``.

    Raises:
        ConfigError: A corpus has several keys, or there are several for all other corpora.
    """
    key_of: dict[str, str] = {}
    for corpus, _, key in (key.rpartition("=") for key in keys if "=" in key):
        if (first := key_of.setdefault(corpus, key)) != key:
            raise ConfigError(
                f"the keys of the corpus {corpus} are {first} and {key}, expected one. Put files "
                f"with another key into a corpus of their own."
            )
    others = [key for key in keys if "=" not in key]
    if key_of and len(others) > 1:
        raise ConfigError(
            f"the keys are {', '.join(keys)}, expected at most one without a corpus, for all "
            f"other corpora. Use the others in separate commands."
        )
    return others or (["text"] if key_of else []), key_of


def _with_own_keys(
    shards: Sequence[Shard], key_of: Mapping[str, str], output: Path
) -> tuple[Shard, ...]:
    corpora = [corpus_in_folder(shard.prefix, output) for shard in shards]
    missing = key_of.keys() - set(corpora)
    if missing:
        raise ConfigError(
            f"the keys name the corpora {', '.join(sorted(missing))}, expected only "
            f"{', '.join(sorted(set(corpora)))}"
        )
    return tuple(
        replace(shard, key=key_of.get(corpus, shard.key))
        for shard, corpus in zip(shards, corpora, strict=True)
    )


def plan_jobs(shard: Shard, job_bytes: int) -> tuple[Job, ...]:
    """The jobs of a shard. Together they read its input once; the cuts do not affect the shard."""
    file = shard.input
    if file.format.kind == "parquet":
        # Imported on demand: pyarrow takes longer than everything else together.
        from blendtitan.prepare.columns import row_group_runs

        runs = row_group_runs(file, job_bytes)
        return tuple(Job(shard, *run) for run in runs) or (Job(shard, 0, 0, 0),)
    num_jobs = 1
    if file.num_bytes and is_cut(file, shard.options):
        num_jobs = -(-file.num_bytes // job_bytes)
    # Equal sizes, so that the last job is not much smaller than the others.
    cuts = [file.num_bytes * n // num_jobs for n in range(num_jobs + 1)]
    return tuple(Job(shard, a, b, b - a) for a, b in pairwise(cuts))


def text_per_worker(plan: Plan, num_workers: int) -> int:
    """The approximate bytes of text that each of some workers encodes."""
    total = sum(
        job.num_bytes * shard.input.format.text_per_byte
        for shard, jobs in plan.items()
        for job in jobs
    )
    return total // num_workers
