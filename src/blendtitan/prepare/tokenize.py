"""Text files to shards, in jobs of a bounded size, in many processes.

A shard depends on its input file and the tokenizer only, so the result is the same for any
number of processes and any size of jobs. A shard appears under its name when it is complete, and
not before; what an interrupted command has finished is not done again.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from blendtitan.config import check_at_least, check_is_path
from blendtitan.errors import FastTierError, InputError
from blendtitan.files import LIMIT_BYTES, DamagedFileError, open_file, parse_json
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.documents import Counts, Settings
from blendtitan.prepare.engines import Engine
from blendtitan.prepare.engines.local import LocalEngine
from blendtitan.prepare.file_formats import DEFAULT_OPTIONS, ReadOptions
from blendtitan.prepare.input_file import WORK_FOLDER
from blendtitan.prepare.join import (
    Record,
    add_tokenizer_record,
    finished_record,
    load_manifests,
    read_record,
    remove_parts,
)
from blendtitan.prepare.ownership import check_other_shards, check_replaceable
from blendtitan.prepare.parts import is_accepted, read_texts, remove_damaged_part
from blendtitan.prepare.plan import (
    Job,
    Plan,
    Shard,
    plan_jobs,
    plan_shards,
    text_per_worker,
    write_plan,
)
from blendtitan.prepare.ranks import Rank
from blendtitan.prepare.removed import RemovedInput, removed_inputs
from blendtitan.prepare.runs import Run, registered_run
from blendtitan.prepare.shard_catalog import withdraw_entries, write_catalog
from blendtitan.prepare.workers import Work, finished_counts
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
from blendtitan.visible import counted, visible_logger

logger = visible_logger(__name__)

JOB_BYTES = 64_000_000
"""Default size of a job: seconds of work, and files of a size that file systems like."""

SHOWN_REJECTS = 20
"""Texts left out of one file that are shown one by one; a file beside the shard has them all."""

_FIRST_TEXTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """How text files become shards."""

    tokenizer: Path
    """A SentencePiece model, a ``tokenizer.json``, or a folder that holds one of them."""

    keys: tuple[str, ...] = ("text",)
    """Fields or columns that hold texts. Several have a subfolder of the output each."""

    max_rejects: int = 0
    """Texts that may be left out, in all files together."""

    job_bytes: int = JOB_BYTES
    """Bytes of a plain file, or of row groups, that are done in one go."""

    eos: str | int | None = None
    """Token or id that ends documents. None: the tokenizer's EOS."""

    bos: bool = False
    """Begin each document with the tokenizer's BOS."""

    options: ReadOptions = DEFAULT_OPTIONS
    """How texts are taken from files, and the longest document."""

    skip_unknown: bool = False
    """Warn of inputs that cannot be read or are of another format, and leave them out."""

    prune: bool = False
    """Delete shards whose input is gone."""

    overwrite: bool = False
    """Replace shards that were made with another tokenizer or key."""

    tier: Tier = "auto"
    """Which libraries may encode; the ids are the same."""

    rank: Rank = field(default_factory=Rank)
    """Which of the commands this is that share the work, on one or more machines."""

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
    """Turn files, folders and patterns of files into shards below ``output``.

    ``plan_shards`` says which file becomes which shard. Shards that are there, of the same input
    and settings, are left as they are. Every file is worked on, also after another one failed. A
    file that cannot be read to its end, or from which more texts are left out than allowed,
    leaves no new shard; the shards of the other files are complete and stay.

    Args:
        inputs: Paths, or URLs that fsspec reads.
        output: Folder of the shards.
        config: How.
        corpus: Subfolder of ``output`` to put everything in.
        engine: Where. None: in a process for each core.

    Returns:
        What each shard holds, in the order of the inputs. Without documents, it is not there.

    Raises:
        ConfigError: A setting or the tokenizer cannot be used. Nothing was written.
        FastTierError: The fast tokenizer tier, which was asked for, turned out to be wrong.
        InputError: A file cannot be used, or more texts are left out than allowed.
    """
    check_is_path("the output", output)
    # Processes of other machines may have another working directory.
    output = output.absolute()
    shards = plan_shards(
        inputs,
        output,
        keys=config.keys,
        corpus=corpus,
        options=config.options,
        skip_unknown=config.skip_unknown,
    )
    tokenizer = load_tokenizer(located(config.tokenizer).absolute(), eos=config.eos)
    settings = Settings.of(tokenizer, bos=config.bos)
    identity = identity_of(tokenizer, settings.eod_id)
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
            counts = work.finish(tier)
        except FastTierError as error:
            refute(settings.tokenizer, str(error))
            if not doubt_path.exists():
                write_atomically(doubt_path, str(error).encode())
            _report_doubt(tier, str(error), doubt_path)
            run.give_up_fast_tier()
            counts = work.finish("reference")
    _report_removed(removed, is_pruned=config.prune)
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
        """Check that nothing is replaced but what the same command made.

        Raises:
            ConfigError: Something would be.
        """
        settings, tokenizer, overwrite = self.settings, self.tokenizer.path, self.config.overwrite
        with self.run.kept_fresh():
            check_other_shards(
                self.output, self.shards, settings, tokenizer=tokenizer, overwrite=overwrite
            )
            for shard in () if overwrite else self.shards:
                check_replaceable(shard, settings, tokenizer)

    def finish(self, tier: Tier) -> dict[Shard, Counts]:
        """Do what is not done yet.

        Raises:
            FastTierError: The fast tier failed: what it made, now or earlier, can be wrong.
            InputError: A file cannot be used, or more texts are left out than allowed.
        """
        if tier != "reference":
            check_not_refuted(self.settings.tokenizer)
        with self.run.kept_fresh():
            plan, errors = self._unfinished(tier)
            work = self._prepared(plan, tier) if plan else None
        # Outside of the block, because processes are copies of this one, which must have no thread.
        if work is not None:
            work.stop_path.unlink(missing_ok=True)
            errors += self.engine.run(work)
        with self.run.kept_fresh():
            write_catalog(self.output)
            counts = self._counts(plan, tier)
        if not errors and len(counts) < len(self.shards):
            missing = next(shard for shard in self.shards if shard not in counts)
            errors.append(
                f"{missing.input.location}: is not finished, expected shard {missing.prefix}. It "
                f"changed, or its files in {WORK_FOLDER} were removed: run again."
            )
        _report(counts, errors, self.config.max_rejects)
        return counts

    def _text_bytes(self, plan: Plan) -> int:
        """Text for each process, which decides whether a proof of the fast tier pays off."""
        world_size = self.config.rank.world_size
        num_jobs = sum(map(len, plan.values()))
        workers = self.engine.num_workers(-(-num_jobs // world_size))
        return text_per_worker(plan, workers * world_size)

    def _prepared(self, plan: Plan, tier: Tier) -> Work:
        """What the processes are to do, when the output is ready for it."""
        # One rank writes it for all: they find the same inputs, and so the same plan.
        if self.config.rank.rank == 0:
            write_plan(self.output, plan, self.settings.described())
        withdraw_entries(self.output, [shard.prefix for shard in plan])
        _prepare_work(plan)
        encoder = self.run.use_tier(
            tier,
            lambda agreed: build_encoder(
                self.tokenizer,
                agreed,
                first_texts=_first_texts(plan),
                text_bytes=self._text_bytes(plan),
            ),
        )
        return Work(
            plan=plan,
            encoder=encoder,
            settings=self.settings,
            tokenizer=self.identity,
            max_rejects=self.config.max_rejects,
            rank=self.config.rank,
            tier=tier,
            doubt_path=_doubt_path(self.output, self.settings),
            overwrite=self.config.overwrite,
            run_path=self.run.path,
        )

    def _unfinished(self, tier: Tier) -> tuple[Plan, list[str]]:
        """Jobs of the shards that are not there yet, and why inputs cannot be read."""
        plan: dict[Shard, tuple[Job, ...]] = {}
        errors: list[str] = []
        if tier != "reference":
            _report_unproven(self.shards)
        for shard in self.shards:
            record = self._finished_record(shard, tier)
            if record is not None:
                add_tokenizer_record(shard.prefix, record.counts, self.identity)
                remove_parts(shard)
                continue
            try:
                plan[shard] = plan_jobs(shard, self.config.job_bytes)
            except InputError as error:
                errors.append(str(error))
        return plan, errors

    def _finished_record(self, shard: Shard, tier: Tier) -> Record | None:
        """The record of a shard that is finished. None: it is not, or its record is damaged."""
        record = finished_record(shard, self.settings, tier)
        if record is None:
            return None
        try:
            load_manifests(shard.record_path)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            logger.warning("%s. The shard is made again.", error)
            with writing(shard.record_path):
                shard.record_path.unlink(missing_ok=True)
            # What is there stays ours, although its record is gone.
            shard.parts_folder.mkdir(parents=True, exist_ok=True)
            write_atomically(shard.placing_path, b"")
            return None
        return record

    def _counts(self, plan: Plan, tier: Tier) -> dict[Shard, Counts]:
        """What each shard holds, or would hold if not too many texts were left out."""
        counts: dict[Shard, Counts] = {}
        for shard in self.shards:
            record = finished_record(shard, self.settings, tier)
            if record is not None:
                counts[shard] = record.counts
            elif shard in plan:
                found = finished_counts(plan[shard], self.settings, tier)
                if found is not None:
                    counts[shard] = found
        return counts


def _report_unproven(shards: Iterable[Shard]) -> None:
    """Warn about shards of the fast tier from before its ids were proven."""
    records = (read_record(shard.prefix, shard.record_path) for shard in shards)
    unproven = [record for record in records if record and not is_accepted(record.tier, "auto")]
    if unproven:
        logger.warning(
            "shards made again: %d. The fast tokenizer tier (%s) encoded them before its ids "
            "were proven equal to those of the reference, so some of them can be wrong.",
            *(len(unproven), unproven[0].tier),
        )


def _report_removed(removed: Sequence[RemovedInput], *, is_pruned: bool) -> None:
    for left in removed:
        if is_pruned:
            logger.info("%s: is gone, so its shard %s was deleted", left.location, left.prefix)
        else:
            logger.warning(
                "%s: is gone, but its shard %s with %s is still there, and in %s. Delete "
                "it with --prune.",
                *(left.location, left.prefix),
                *(counted(left.counts.documents, "document"), CATALOG_FILE),
            )


def _doubt_path(output: Path, settings: Settings) -> Path:
    """File that says why the fast tier is not to be used for this tokenizer."""
    return output / WORK_FOLDER / f"{settings.tokenizer[:16]}.fast-tier-is-wrong"


def _report_doubt(tier: Tier, reason: str, doubt_path: Path) -> None:
    """Warn that the reference tier is used.

    Raises:
        FastTierError: The fast tier was asked for.
    """
    if tier == "fast":
        raise FastTierError(
            f"{reason} What it made for this tokenizer is not trusted: run again with "
            f"--tokenizer-tier auto or reference, which make it anew."
        )
    logger.warning(
        "%s What the fast tier made for this tokenizer is made again by the reference tier. To "
        "try the fast one once more, as with another version of gigatoken, delete %s.",
        *(reason, doubt_path),
    )


def _first_texts(plan: Plan) -> Iterator[str]:
    """Some texts, to try the tokenizer on; what cannot be read is not told here."""
    for job in next(iter(plan.values()))[:1]:
        with suppress(InputError):
            texts = (text for text in read_texts(job, lambda _: None) if isinstance(text, str))
            yield from islice(texts, _FIRST_TEXTS)


def _prepare_work(plan: Plan) -> None:
    for shard, jobs in plan.items():
        with writing(shard.parts_folder):
            shard.parts_folder.mkdir(parents=True, exist_ok=True)
        with writing(shard.failure_path):
            shard.failure_path.unlink(missing_ok=True)
        for job in jobs:
            remove_damaged_part(job)


def _report(counts: Mapping[Shard, Counts], errors: Sequence[str], max_rejects: int) -> None:
    num_rejects = sum(found.rejects for found in counts.values())
    rejects, failures = list(_reject_lines(counts)), _grouped(errors)
    has_documents = any(found.documents for found in counts.values())
    if errors or num_rejects > max_rejects or not has_documents:
        if not errors and num_rejects <= max_rejects:
            raise InputError(
                *rejects,
                f"{counted(len(counts), 'file holds', 'files hold')} no document at all "
                f"({counted(num_rejects, 'text')} left out)",
            )
        # What failed stands last, where people look first.
        raise InputError(
            f"{counted(num_rejects, 'text')} of finished jobs left out, {max_rejects:,} allowed "
            f"(--max-rejects); {counted(len(errors), 'error')}. A file with more than allowed "
            f"has no new shard. Run again, nothing that is finished will be done again.",
            *rejects,
            *(line for text in failures for line in text.splitlines()),
        )
    for line in rejects:
        logger.warning("left out: %s", line)
    for shard, found in counts.items():
        if found.documents == 0:
            logger.warning("%s: holds no documents, so it has no shard", shard.input.location)
    total = sum(counts.values(), Counts())
    if total.with_unknown:
        logger.warning(
            "%d of %s contain the token for unknown text: the tokenizer lacks some of their "
            "characters",
            *(total.with_unknown, counted(total.documents, "document")),
        )
    if total.without_text:
        logger.warning(
            "%d of %s consist of EOD only: the tokenizer drops all of their text",
            *(total.without_text, counted(total.documents, "document")),
        )


def _reject_lines(counts: Mapping[Shard, Counts]) -> Iterator[str]:
    """Texts left out, of each reason the first, and how many each file has."""
    first: dict[str, str] = {}
    readable: list[Path] = []
    for shard, found in counts.items():
        if not found.rejects:
            continue
        location, path = shard.input.location, shard.rejects_path
        try:
            for reason, text in islice(_rejects(path), SHOWN_REJECTS):
                first.setdefault(reason, text)
            readable.append(path)
        except (OSError, DamagedFileError) as error:
            yield (
                f"{location}: {found.rejects:,} texts, but their list cannot be read ({error}). "
                f"To have it made again, delete {shard.record_path} and run with --overwrite."
            )
        if found.rejects > SHOWN_REJECTS:
            yield f"{location}: {found.rejects:,} texts in all, listed in {path}"
    seen = _numbers_of_rejects(readable, first)
    for reason, text in first.items():
        yield text + (f" (and {seen[reason] - 1:,} more like it)" if seen[reason] > 1 else "")


def _numbers_of_rejects(paths: Iterable[Path], reasons: Container[str]) -> Counter[str]:
    """How many texts were left out for each of some reasons. There may be millions of others."""
    seen: Counter[str] = Counter()
    for path in paths:
        # What stands behind a damaged place cannot be told.
        with suppress(OSError, DamagedFileError):
            seen.update(reason for reason, _ in _rejects(path) if reason in reasons)
    return seen


def _grouped(errors: Iterable[str]) -> list[str]:
    """Errors; of those that differ in the file only, the first, and how many more there are."""
    first: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for error in errors:
        reason = error.partition(": ")[2] or error
        first.setdefault(reason, error)
        seen[reason] += 1
    return [
        error + (f" (and {seen[reason] - 1:,} more files like it)" if seen[reason] > 1 else "")
        for reason, error in first.items()
    ]


def _rejects(path: Path) -> Iterator[tuple[str, str]]:
    """Reason and description of the texts that were left out."""
    with open_file(path) as file:
        while line := file.readline(LIMIT_BYTES):
            reject = parse_json(line, dict)
            yield str(reject.get("reason")), _reject_text(reject)


def _reject_text(reject: dict[str, object]) -> str:
    place = f"byte {reject['byte']}" if "byte" in reject else f"row {reject.get('row')}"
    return f"{reject.get('input')}, {place}: {reject.get('reason')}"
