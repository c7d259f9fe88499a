"""Text files to shards, in jobs of a bounded size, in many processes.

A shard depends on its input file and the tokenizer only, so the result is the same for any
number of processes and any size of jobs. A shard appears under its name when it is complete, and
not before; what an interrupted command has finished is not done again.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from blendtitan.config import check_at_least
from blendtitan.errors import FastTierError, InputError
from blendtitan.identity import TokenizerIdentity
from blendtitan.prepare.documents import Counts, Settings
from blendtitan.prepare.engines import Engine
from blendtitan.prepare.engines.local import LocalEngine
from blendtitan.prepare.inputs import WORK_FOLDER
from blendtitan.prepare.join import (
    Record,
    add_tokenizer_record,
    finished_record,
    load_manifests,
    remove_parts,
)
from blendtitan.prepare.ownership import check_other_shards, check_replaceable
from blendtitan.prepare.parts import read_texts, remove_damaged_part
from blendtitan.prepare.plan import Job, Plan, Shard, plan_jobs, plan_shards, write_plan
from blendtitan.prepare.ranks import Rank
from blendtitan.prepare.runs import Run, registered_run
from blendtitan.prepare.shard_catalog import withdraw_entries, write_catalog
from blendtitan.prepare.workers import Work, finished_counts
from blendtitan.storage.disk import read_note, written
from blendtitan.storage.json_files import LIMIT_BYTES, DamagedFileError, parse_json
from blendtitan.storage.writer import write_atomically
from blendtitan.tokenizers import Tier, Tokenizer, build_encoder, identity_of, load_tokenizer

logger = logging.getLogger(__name__)

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

    overwrite: bool = False
    """Replace shards that were made with another tokenizer or key."""

    tier: Tier = "auto"
    """Which libraries may encode; the ids are the same."""

    rank: Rank = field(default_factory=Rank)
    """Which of the commands this is that share the work, on one or more machines."""

    def __post_init__(self) -> None:
        check_at_least("max_rejects", self.max_rejects, 0)
        check_at_least("job_bytes", self.job_bytes, 1)


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
    # Processes of other machines may have another working directory.
    output = output.absolute()
    shards = plan_shards(inputs, output, keys=config.keys, corpus=corpus)
    tokenizer = load_tokenizer(config.tokenizer.absolute())
    settings = Settings.of(tokenizer)
    identity = identity_of(tokenizer, settings.eod_id)
    tier, doubt_path = config.tier, _doubt_path(output, settings)
    if tier != "reference" and doubt_path.exists():
        _report_doubt(tier, read_note(doubt_path), doubt_path)
        tier = "reference"
    with registered_run(
        shards, output, tokenizer=tokenizer.path, settings=settings, inputs=inputs, tier=tier
    ) as run:
        work = _Tokenizing(
            shards, output, tokenizer, settings, identity, config, engine or LocalEngine(), run
        )
        work.check_output()
        try:
            return work.finish(tier)
        except FastTierError as error:
            _report_doubt(tier, str(error), doubt_path)
        run.give_up_fast_tier()
        return work.finish("reference")


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
        with self.run.kept_fresh():
            plan, errors = self._unfinished(tier)
            work = self._prepared(plan, tier) if plan else None
        # Outside of the block, because processes are copies of this one, which must have no thread.
        if work is not None:
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

    def _prepared(self, plan: Plan, tier: Tier) -> Work:
        """What the processes are to do, when the output is ready for it."""
        # One rank writes it for all: they find the same inputs, and so the same plan.
        if self.config.rank.rank == 0:
            write_plan(self.output, plan, asdict(self.settings))
        withdraw_entries(self.output, [shard.prefix for shard in plan])
        _prepare_work(plan)
        encoder = self.run.use_tier(
            tier,
            lambda agreed: build_encoder(self.tokenizer, agreed, first_texts=_first_texts(plan)),
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
            with written(shard.record_path):
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
        with written(shard.parts_folder):
            shard.parts_folder.mkdir(parents=True, exist_ok=True)
        with written(shard.failure_path):
            shard.failure_path.unlink(missing_ok=True)
        for job in jobs:
            remove_damaged_part(job)


def _report(counts: Mapping[Shard, Counts], errors: Sequence[str], max_rejects: int) -> None:
    num_rejects = sum(found.rejects for found in counts.values())
    report = [*errors, *_reject_lines(counts)]
    if errors or num_rejects > max_rejects:
        summary = (
            f"{num_rejects:,} texts left out, {max_rejects:,} allowed (--max-rejects); "
            f"{len(errors)} files cannot be read. A file with more than allowed has no new shard. "
            f"Run again, nothing that is finished will be done again."
        )
        raise InputError("\n".join([*report, summary]))
    for line in report:
        logger.warning("left out: %s", line)
    for shard, found in counts.items():
        if found.documents == 0:
            logger.warning("%s: holds no documents, so it has no new shard", shard.input.location)


def _reject_lines(counts: Mapping[Shard, Counts]) -> Iterator[str]:
    for shard, found in counts.items():
        if not found.rejects:
            continue
        location, path = shard.input.location, shard.rejects_path
        try:
            yield from _first_rejects(path)
        except (OSError, DamagedFileError) as error:
            yield (
                f"{location}: {found.rejects:,} texts, but their list cannot be read ({error}). "
                f"To have it made again, delete {shard.record_path} and run with --overwrite."
            )
        if found.rejects > SHOWN_REJECTS:
            yield f"{location}: {found.rejects:,} texts in all, listed in {path}"


def _first_rejects(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for _ in range(SHOWN_REJECTS):
            line = file.readline(LIMIT_BYTES)
            if not line:
                return
            yield _reject_text(parse_json(line, dict))


def _reject_text(reject: dict[str, object]) -> str:
    place = f"byte {reject['byte']}" if "byte" in reject else f"row {reject.get('row')}"
    return f"{reject.get('input')}, {place}: {reject.get('reason')}"
