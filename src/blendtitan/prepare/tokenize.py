"""Text files to shards, in jobs of a bounded size, in several processes.

A shard depends on its input file and the tokenizer only, so the result is the same for any
number of processes and any size of jobs. A shard appears under its name when it is complete, and
not before; what an interrupted command has finished is not done again.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import orjson

from blendtitan.errors import ConfigError, FastTierError, InputError
from blendtitan.prepare.join import is_finished, read_record, remove_parts
from blendtitan.prepare.parts import Counts, Settings, read_texts, remove_damaged_part
from blendtitan.prepare.plan import (
    WORK_FOLDER,
    Job,
    Plan,
    Shard,
    plan_jobs,
    plan_shards,
    write_plan,
)
from blendtitan.prepare.workers import TokenizeConfig, finished_counts, run_jobs
from blendtitan.tokenizers import ABSENT, Tier, Tokenizer, build_encoder, load_tokenizer

logger = logging.getLogger(__name__)

_FIRST_TEXTS = 64

SHOWN_REJECTS = 20
"""Texts left out of one file that are shown one by one; a file beside the shard has them all."""


def tokenize(
    inputs: Sequence[Path], output: Path, config: TokenizeConfig, *, corpus: str | None = None
) -> dict[Shard, Counts]:
    """Turn files, folders and patterns of files into shards below ``output``.

    ``plan_shards`` says which file becomes which shard. Shards that are there, of the same input
    and settings, are left as they are. Every file is worked on, also after another one failed. A
    file that cannot be read to its end, or from which more texts are left out than allowed,
    leaves no new shard; the shards of the other files are complete and stay.

    Returns:
        What each shard holds, in the order of the inputs. Without documents, it is not there.

    Raises:
        ConfigError: A setting or the tokenizer cannot be used. Nothing was written.
        InputError: A file cannot be used, or more texts are left out than allowed.
    """
    shards = plan_shards(inputs, output, keys=config.keys, corpus=corpus)
    tokenizer = load_tokenizer(config.tokenizer)
    if tokenizer.eos_id == ABSENT:
        raise ConfigError(
            f"{tokenizer.path}: the tokenizer has no EOS to put after each document. Name one "
            f"(for a tokenizer.json: eos_token in the tokenizer_config.json beside it)."
        )
    settings = Settings.of(tokenizer)
    if not config.overwrite:
        _check_settings(shards, settings)
    plan, errors = _plan_unfinished(shards, settings, config.job_bytes)
    tier = config.tier
    if plan:
        # One rank writes it for all: they find the same inputs, and so the same plan.
        if config.rank.rank == 0:
            write_plan(output / WORK_FOLDER / "plan.jsonl", plan, asdict(settings))
        _prepare_work(plan)
        tier, failures = _run(plan, tokenizer, settings, config)
        errors += failures
    counts = _counts(shards, plan, settings, tier)
    if not errors and len(counts) < len(shards):
        missing = next(shard for shard in shards if shard not in counts)
        errors.append(
            f"{missing.input.path}: is not finished, expected shard {missing.prefix}. It changed, "
            f"or its files in {WORK_FOLDER} were removed: run again."
        )
    _report(counts, errors, config.max_rejects)
    return counts


def _run(
    plan: Plan, tokenizer: Tokenizer, settings: Settings, config: TokenizeConfig
) -> tuple[Tier, list[str]]:
    """Do a plan; returns the tier that did it, and why inputs cannot be read."""
    encoder = build_encoder(tokenizer, config.tier, first_texts=_first_texts(plan))
    try:
        return encoder.tier, run_jobs(plan, encoder, settings, config)
    except FastTierError as error:
        for shard in plan:
            shard.record_path.unlink(missing_ok=True)
            shard.parts_folder.mkdir(parents=True, exist_ok=True)
        if config.tier == "fast":
            raise FastTierError(f"{error} Run again with --tokenizer-tier reference.") from error
        if config.rank.world_size > 1:
            # The others have trusted it as well, so that one alone cannot begin anew.
            raise FastTierError(
                f"{error} Stop all ranks, delete the shards of this run, and run again with "
                f"--tokenizer-tier reference."
            ) from error
        logger.warning(
            "%s Everything is done again by the reference tier. Shards that an earlier run made "
            "with the fast tier are kept: delete them, and run again with --tokenizer-tier "
            "reference.",
            error,
        )
    reference = build_encoder(tokenizer, "reference")
    return reference.tier, run_jobs(plan, reference, settings, config)


def _first_texts(plan: Plan) -> Iterator[str]:
    """Some texts, to try the tokenizer on; what cannot be read is not told here."""
    for job in next(iter(plan.values()))[:1]:
        with suppress(InputError):
            texts = (text for text in read_texts(job, lambda _: None) if isinstance(text, str))
            yield from islice(texts, _FIRST_TEXTS)


def _plan_unfinished(
    shards: Sequence[Shard], settings: Settings, job_bytes: int
) -> tuple[Plan, list[str]]:
    """Jobs of the shards that are not there yet, and why inputs cannot be read."""
    plan: dict[Shard, tuple[Job, ...]] = {}
    errors: list[str] = []
    for shard in shards:
        if is_finished(shard, settings):
            remove_parts(shard)
            continue
        try:
            plan[shard] = plan_jobs(shard, job_bytes)
        except InputError as error:
            errors.append(str(error))
    return plan, errors


def _prepare_work(plan: Plan) -> None:
    for shard, jobs in plan.items():
        shard.parts_folder.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            remove_damaged_part(job)


def _check_settings(shards: Iterable[Shard], settings: Settings) -> None:
    """Check that no shard is there that was made with other settings.

    Raises:
        ConfigError: One is.
    """
    for shard in shards:
        record = read_record(shard)
        if record is not None and (record.key, record.settings) != (shard.key, settings):
            raise ConfigError(
                f"{shard.prefix}: was made of key {record.key!r} with {record.settings}, asked "
                f"for are key {shard.key!r} and {settings}. Choose another --output, or replace "
                f"the shards with --overwrite."
            )


def _counts(
    shards: Iterable[Shard], plan: Plan, settings: Settings, tier: Tier
) -> dict[Shard, Counts]:
    """What each shard holds, or would hold if not too many texts were left out."""
    counts: dict[Shard, Counts] = {}
    for shard in shards:
        record = read_record(shard) if is_finished(shard, settings) else None
        found = record.counts if record else _parts_counts(plan.get(shard), settings, tier)
        if found is not None:
            counts[shard] = found
    return counts


def _parts_counts(jobs: Sequence[Job] | None, settings: Settings, tier: Tier) -> Counts | None:
    return None if jobs is None else finished_counts(jobs, settings, tier)


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
            logger.warning("%s: holds no documents, so it has no new shard", shard.input.path)


def _reject_lines(counts: Mapping[Shard, Counts]) -> Iterator[str]:
    for shard, found in counts.items():
        if found.rejects:
            with shard.rejects_path.open("rb") as file:
                for line in islice(file, SHOWN_REJECTS):
                    yield _reject_text(orjson.loads(line))
        if found.rejects > SHOWN_REJECTS:
            path = shard.rejects_path
            yield f"{shard.input.path}: {found.rejects:,} texts in all, listed in {path}"


def _reject_text(reject: dict[str, str | int]) -> str:
    place = f"byte {reject['byte']}" if "byte" in reject else f"row {reject['row']}"
    return f"{reject['input']}, {place}: {reject['reason']}"
