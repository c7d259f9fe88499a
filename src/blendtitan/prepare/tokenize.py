"""Tokenise text files into shards, in jobs of bounded size, in many processes.

A shard depends only on its input file and the tokenizer, so the result is the same for any number
of processes and any job size. A shard appears under its name only when it is complete. An
interrupted command can be run again; it repeats nothing that is finished.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from blendtitan.config import check_at_least, check_is_path
from blendtitan.errors import ConfigError, FastTierError, InputError
from blendtitan.files import DamagedFileError, path_of, url_of
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.documents import (
    Counts,
    Settings,
    finished_counts,
    read_texts,
    remove_damaged_part,
)
from blendtitan.prepare.engines import Engine, LocalEngine
from blendtitan.prepare.existing import check_replaceable, check_settings, removed_inputs
from blendtitan.prepare.input_file import (
    DEFAULT_OPTIONS,
    WORK_FOLDER,
    ReadOptions,
    work_folder,
)
from blendtitan.prepare.plan import Job, Plan, Shard, plan_jobs, plan_shards, text_per_worker
from blendtitan.prepare.records import (
    Record,
    add_tokenizer_record,
    finished_record,
    load_manifests,
    remove_parts,
    withdraw_entries,
    write_catalog,
)
from blendtitan.prepare.report import (
    check_counts,
    first_problems,
    report_empty_fields,
    report_lost_lines,
    report_removed,
    report_unproven,
)
from blendtitan.prepare.runs import Run, registered_run
from blendtitan.prepare.workers import Rank, Work
from blendtitan.storage.atomic_files import read_note, write_atomically, writing
from blendtitan.storage.records import CATALOG_FILE
from blendtitan.tokenizers import (
    Tier,
    Tokenizer,
    build_encoder,
    identity_of,
    load_tokenizer,
    located,
)
from blendtitan.tokenizers.proof import check_not_refuted, refute
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

JOB_BYTES = 64_000_000
"""Default size of a job: seconds of work, and files large enough for any file system."""

_FIRST_TEXTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """Settings of ``tokenize``."""

    tokenizer: Path
    """A SentencePiece model, a ``tokenizer.json``, a Tekken file, or a folder with one of them."""

    keys: tuple[str, ...] = ("text",)
    """Fields or columns with the text. If there are several, each has its own subfolder."""

    max_rejects: int = 0
    """Largest number of rejected texts, in all files together."""

    job_bytes: int = JOB_BYTES
    """Bytes of a plain file, or of row groups, per job."""

    eos: str | int | None = None
    """Token or id that ends documents. None: the tokenizer's EOS."""

    bos: bool = False
    """Begin each document with the tokenizer's BOS."""

    options: ReadOptions = DEFAULT_OPTIONS
    """Settings for reading texts from files, and the size of the longest document."""

    skip_unknown: bool = False
    """Skip inputs that cannot be read or have another format, with a warning."""

    prune: bool = False
    """Delete shards whose input was removed."""

    overwrite: bool = False
    """Replace shards that were made with another tokenizer or key."""

    tier: Tier = "auto"
    """The library that encodes. The ids are the same."""

    rank: Rank = field(default_factory=Rank)
    """Rank of this command among those that share the work, on one or more machines."""

    def __post_init__(self) -> None:
        check_at_least("max_rejects", self.max_rejects, 0)
        check_at_least("job_bytes", self.job_bytes, 1)
        check_at_least("max_document_bytes", self.options.max_document_bytes, 1)


def tokenize(
    inputs: Sequence[str | Path],
    output: Path,
    config: TokenizeConfig,
    *,
    corpus: str | None = None,
    engine: Engine | None = None,
) -> dict[Shard, Counts]:
    """Tokenise files, folders and patterns of files into shards below ``output``.

    Each input file makes one shard per key. Existing shards with the same input and settings are
    kept. All files are processed, even if some fail. A file that cannot be read to its end,
    or has more rejected texts than allowed, leaves no new shard.

    Args:
        inputs: Paths, or URLs that fsspec reads.
        output: Folder of the shards, also as a URL of object storage.
        config: The settings.
        corpus: Subfolder of ``output`` for all shards. None: the subfolders of the inputs.
        engine: The engine that runs the processes. None: one process per core of this machine.

    Returns:
        The counts of each shard, in the order of the inputs. A shard without documents has counts
        of zero and no files.

    Raises:
        ConfigError: A setting, the tokenizer or the output is unusable. Nothing was written.
        FastTierError: The fast tokenizer tier was requested, and gave other ids than the reference.
        InputError: A file cannot be used, or more texts are rejected than allowed.
    """
    output = _checked_output(output)
    shards = plan_shards(
        inputs,
        output,
        keys=config.keys,
        corpus=corpus,
        options=config.options,
        skip_unknown=config.skip_unknown,
    )
    return tokenize_shards(shards, output, config, inputs=inputs, engine=engine)


def tokenize_shards(
    shards: tuple[Shard, ...],
    output: Path,
    config: TokenizeConfig,
    *,
    inputs: Sequence[str | Path],
    engine: Engine | None = None,
    removed_are: str = f"is listed in {CATALOG_FILE}",
) -> dict[Shard, Counts]:
    """``tokenize`` for shards that are planned already, such as those of several corpora.

    ``removed_are`` says what becomes of a shard whose input was removed.
    """
    tokenizer = load_tokenizer(located(config.tokenizer).absolute(), eos=config.eos)
    if config.rank.rank == 0:
        report_lost_lines(tokenizer)
    settings = Settings.of(tokenizer, bos=config.bos)
    identity = identity_of(tokenizer, settings.eod_id)
    if url_of(output):
        from blendtitan.prepare.uploads import begin

        begin(output)
    tier, doubt_path = config.tier, _doubt_path(output, settings)
    if tier != "reference" and doubt_path.exists():
        _report_doubt(tier, read_note(doubt_path), doubt_path)
        tier = "reference"
    removed = list(removed_inputs(output, inputs, [shard.prefix for shard in shards]))
    with registered_run(
        shards, output, tokenizer=tokenizer.path, settings=settings, inputs=inputs, tier=tier
    ) as run:
        work = _Tokenizing(
            shards, output, tokenizer, settings, identity, config, engine or LocalEngine(), run
        )
        work.check_output()
        if config.prune and config.rank.rank == 0:
            for left in removed:
                left.delete_shard()
        try:
            counts = work.finish(run.tier)
        except FastTierError as error:
            refute(settings.tokenizer, str(error))
            if not doubt_path.exists():
                write_atomically(doubt_path, str(error).encode())
            _report_doubt(tier, str(error), doubt_path)
            run.give_up_fast_tier()
            counts = work.finish("reference")
    report_removed(removed, removed_are, is_pruned=config.prune)
    report_empty_fields(counts, config.options.keep)
    return counts


@dataclass(frozen=True, slots=True)
class _Tokenizing:
    """One call of ``tokenize``."""

    shards: tuple[Shard, ...]
    output: Path
    tokenizer: Tokenizer
    settings: Settings
    identity: TokenizerIdentity
    config: TokenizeConfig
    engine: Engine
    run: Run

    def check_output(self) -> None:
        """Check that this command would replace only its own shards."""
        settings, tokenizer, overwrite = self.settings, self.tokenizer.path, self.config.overwrite
        with self.run.kept_fresh():
            check_settings(
                self.output,
                self.shards,
                settings,
                tokenizer=tokenizer,
                identity=self.identity,
                overwrite=overwrite,
            )
            for shard in () if overwrite else self.shards:
                check_replaceable(shard, settings, tokenizer)

    def finish(self, tier: Tier) -> dict[Shard, Counts]:
        """Do the unfinished work, and return the counts of all shards."""
        if tier != "reference":
            check_not_refuted(self.settings.tokenizer)
        with self.run.kept_fresh():
            plan, errors = self._unfinished(tier)
            work = self._prepare(plan, tier) if plan else None
        # Outside the block, because this process forks and must have no threads.
        if work is not None:
            work.stop_path.unlink(missing_ok=True)
            errors += self.engine.run(work)
        is_stopped = work is not None and work.stop_path.exists()
        with self.run.kept_fresh():
            if work is not None and url_of(self.output):
                from blendtitan.prepare.uploads import fetch_records

                fetch_records(self.output)  # drops those whose shards did not arrive
            write_catalog(self.output)
            counts = self._counts(plan, tier)
            if is_stopped:
                unread = {shard: jobs for shard, jobs in plan.items() if shard not in counts}
                errors += first_problems(unread, self.output, errors)
        if not errors and len(counts) < len(self.shards):
            missing = next(shard for shard in self.shards if shard not in counts)
            errors.append(
                f"{missing.input.location}: its shard {missing.prefix} is not finished. The input "
                f"changed, or its files in {WORK_FOLDER} were removed: run again."
            )
        check_counts(counts, errors, self.config.max_rejects, is_stopped=is_stopped)
        return counts

    def _unfinished(self, tier: Tier) -> tuple[Plan, list[str]]:
        """The jobs of unfinished shards, and an error for each unreadable input."""
        plan: dict[Shard, tuple[Job, ...]] = {}
        errors: list[str] = []
        if tier != "reference":
            report_unproven(self.shards)
        for shard in self.shards:
            record = self._intact_record(shard, tier)
            if record is not None:
                add_tokenizer_record(shard.prefix, record.counts, self.identity)
                remove_parts(shard)
                continue
            try:
                plan[shard] = plan_jobs(shard, self.config.job_bytes)
            except InputError as error:
                errors.append(str(error))
        return plan, errors

    def _intact_record(self, shard: Shard, tier: Tier) -> Record | None:
        """The record of a finished shard, or None; a damaged one is removed."""
        record = finished_record(shard, self.settings, tier)
        if record is None:
            return None
        try:
            load_manifests(shard.record_path)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            logger.warning("%s. The shard is rebuilt.", error)
            with writing(shard.record_path):
                shard.record_path.unlink(missing_ok=True)
            # Keep the shard marked as ours without its record.
            shard.parts_folder.mkdir(parents=True, exist_ok=True)
            write_atomically(shard.placing_path, b"")
            return None
        return record

    def _prepare(self, plan: Plan, tier: Tier) -> Work:
        """Prepare the output, and return the work for the processes."""
        rank = self.config.rank
        withdraw_entries(self.output, [shard.prefix for shard in plan])
        for shard, jobs in plan.items():
            with writing(shard.parts_folder):
                shard.parts_folder.mkdir(parents=True, exist_ok=True)
            with writing(shard.failure_path):
                shard.failure_path.unlink(missing_ok=True)
            for job in jobs:
                remove_damaged_part(job)
        if self.config.options.has_docs:
            # Imported before this process forks, so that its processes need not do it.
            import blendtitan.prepare.part_sources  # noqa: F401
        # A proof of the fast tier must pay off for each process.
        num_jobs = sum(map(len, plan.values()))
        workers = self.engine.num_workers(-(-num_jobs // rank.world_size)) * rank.world_size
        encoder = build_encoder(
            self.tokenizer,
            tier,
            first_texts=_first_texts(plan),
            text_bytes=text_per_worker(plan, workers),
        )
        return Work(
            plan=plan,
            encoder=encoder,
            settings=self.settings,
            tokenizer=self.identity,
            max_rejects=self.config.max_rejects,
            rank=rank,
            tier=tier,
            doubt_path=_doubt_path(self.output, self.settings),
            overwrite=self.config.overwrite,
            run_path=self.run.path,
        )

    def _counts(self, plan: Plan, tier: Tier) -> dict[Shard, Counts]:
        """The counts of each shard, including those with too many rejected texts."""
        counts: dict[Shard, Counts] = {}
        for shard in self.shards:
            record = finished_record(shard, self.settings, tier)
            found = record and record.counts
            if record is None and shard in plan:
                found = finished_counts(plan[shard], self.settings, tier)
            if found is not None:
                counts[shard] = found
        return counts


def _checked_output(output: Path) -> Path:
    """An absolute path, because processes of other machines may have another working directory."""
    check_is_path("the output", output, may_be_remote=True)
    if (url := url_of(output)) and url.startswith("http"):
        raise ConfigError(
            f"the output is {url}, which is a URL of a web server, expected a local path, or a URL "
            f"such as s3://bucket/folder"
        )
    return path_of(output).absolute()


def _doubt_path(output: Path, settings: Settings) -> Path:
    """File with the reason not to use the fast tier for this tokenizer."""
    return work_folder(output) / f"{settings.tokenizer[:16]}.fast-tier-is-wrong"


def _report_doubt(tier: Tier, reason: str, doubt_path: Path) -> None:
    """Warn that the reference tier is used; raise if the fast tier was requested."""
    if tier == "fast":
        raise FastTierError(
            f"{reason} Its shards of this tokenizer are not trusted: run again with "
            f"--tokenizer-tier auto or reference, which replace them."
        )
    logger.warning(
        "%s The reference tier replaces the fast tier's shards of this tokenizer. To try the fast "
        "tier again, for example with another version of gigatoken, delete %s.",
        *(reason, doubt_path),
    )


def _first_texts(plan: Plan) -> Iterator[str]:
    """Some texts to test the tokenizer with. Unreadable files are reported elsewhere."""
    for job in next(iter(plan.values()))[:1]:
        with suppress(InputError):
            texts = (text for text in read_texts(job, lambda _: None) if isinstance(text, tuple))
            yield from (text for _, text, _ in islice(texts, _FIRST_TEXTS))
