"""Text files to shards, one file at a time, in several processes.

A shard depends on its input file and the tokenizer only, so the result is the same for any
number of processes. A shard appears under its name when it is complete, and not before.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from blendtitan.errors import ConfigError, InputError
from blendtitan.prepare.plan import plan_jobs
from blendtitan.prepare.tokenize_file import TokenizedFile
from blendtitan.prepare.workers import TokenizeConfig, run_jobs
from blendtitan.tokenizers import ABSENT, load_tokenizer

logger = logging.getLogger(__name__)


def tokenize(
    inputs: Sequence[Path], output: Path, config: TokenizeConfig, *, corpus: str | None = None
) -> list[TokenizedFile]:
    """Turn files and folders of JSON lines into shards below ``output``.

    ``plan_jobs`` says which file becomes which shard. Every file is worked on, also after another
    one failed. A file that cannot be read to its end, or has more bad lines than are allowed,
    leaves no new shard; the shards of the other files are complete and stay.

    Returns:
        One entry per input file, in the order of the inputs.

    Raises:
        ConfigError: A setting or the tokenizer cannot be used. Nothing was written.
        InputError: A file cannot be used, or there are more bad lines than allowed.
    """
    jobs = plan_jobs(inputs, output, corpus=corpus)
    tokenizer = load_tokenizer(config.tokenizer)
    if tokenizer.eos_id == ABSENT:
        raise ConfigError(
            f"{tokenizer.path}: the tokenizer has no EOS to put after each document. Name one "
            f"(for a tokenizer.json: eos_token in the tokenizer_config.json beside it)."
        )
    results, errors = run_jobs(jobs, tokenizer, config)
    num_rejects = sum(result.rejects.count for result in results)
    report = [*errors, *_reject_lines(results)]
    if errors or num_rejects > config.max_rejects:
        summary = (
            f"{num_rejects:,} bad lines, {config.max_rejects:,} allowed (--max-rejects); "
            f"{len(errors)} of {len(jobs)} files cannot be read. Files with more bad lines than "
            f"allowed have no new shard."
        )
        raise InputError("\n".join([*report, summary]))
    for line in report:
        logger.warning("left out: %s", line)
    for result in results:
        if result.num_documents == 0:
            logger.warning("%s: holds no documents, so it has no new shard", result.job.input_path)
    return results


def _reject_lines(results: Iterable[TokenizedFile]) -> Iterator[str]:
    for result in results:
        yield from map(str, result.rejects.first)
        hidden = result.rejects.count - len(result.rejects.first)
        if hidden:
            yield f"{result.job.input_path}: and {hidden:,} more bad lines"
