"""Commands that prepare data for training: tokenize, mix and demo."""

import os
import shlex
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from blendtitan.commands.arguments import (
    SHARDS,
    Add,
    argument,
    command,
    data_path,
    flag,
    names,
    number,
    one_of,
    path,
)
from blendtitan.terminal import complain, say

if TYPE_CHECKING:
    from blendtitan.prepare.tokenize import TokenizeConfig


TXT = argument(
    "--txt",
    "documents of a .txt file: the whole file, or each line (default: file; prepare: txt in "
    "data.toml)",
    choices=["file", "line"],
)

TEXTS: tuple[Add, ...] = (
    number(
        "--max-rejects",
        "N",
        "number of rejected texts to tolerate (default: %(default)s)",
        default=0,
    ),
    TXT,
    number(
        "--max-document-bytes",
        "N",
        "largest size of a document, or of a line of JSON; larger ones are rejected (default: 16 "
        "MiB)",
    ),
    names(
        "--keep",
        "fields or columns to record for each document in PREFIX.docs.parquet, as in "
        "url,licence,meta.id; shards without them are made again",
    ),
    flag("--no-docs", "do not record the source of each document in PREFIX.docs.parquet"),
    flag(
        "--skip-unknown",
        "warn about files that cannot be read or have an unknown format, instead of failing. "
        "Documentation, such as README.md, is skipped in any case",
    ),
    flag(
        "--prune",
        "delete shards whose input file was removed; prepare: also those of files that data.toml "
        "does not name",
    ),
    flag("--overwrite", "replace shards of another tokenizer, key, --txt, input or program"),
)
"""Options of the commands that tokenise text."""

MAX_EPOCHS = number(
    "--max-epochs",
    "N",
    "largest number of epochs of a corpus; 0: no limit (default: %(default)g)",
    type=float,
    default=4.0,
)


def texts_config(options: Namespace) -> "Callable[..., TokenizeConfig]":
    """``TokenizeConfig`` with the settings of ``TEXTS``."""
    from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES, ReadOptions
    from blendtitan.prepare.tokenize import TokenizeConfig

    longest = options.max_document_bytes
    return partial(
        TokenizeConfig,
        max_rejects=options.max_rejects,
        options=ReadOptions(
            options.txt or "file",
            MAX_DOCUMENT_BYTES if longest is None else longest,
            keep=options.keep,
            has_docs=not options.no_docs,
        ),
        skip_unknown=options.skip_unknown,
        prune=options.prune,
        overwrite=options.overwrite,
    )


@command(
    "tokenize",
    "turn text files into shards",
    argument("inputs", "file, folder or glob pattern; path or URL", metavar="INPUT", nargs="+"),
    path("--output", "DIR", "folder of the shards; path or URL", required=True, type=data_path),
    path(
        "--tokenizer",
        "PATH",
        "SentencePiece .model, Hugging Face tokenizer.json, Tekken file, a folder with one of them "
        "(tokenizer.json is preferred), a URL of one, or a name ORG/NAME in the local Hugging Face "
        "cache",
        required=True,
        type=data_path,
    ),
    one_of(
        argument("--eos-token", "token that ends documents", metavar="TOKEN"),
        number("--eod-id", "ID", "id of the token that ends documents"),
    ),
    flag("--bos", "begin each document with the tokenizer's BOS"),
    number("--workers", "N", "processes (default: one per core)"),
    argument(
        "--key",
        "field or column with the text (default: text). If given several times, each key makes its "
        "own shards, in DIR/NAME. CORPUS=NAME applies to one corpus",
        metavar="NAME",
        action="append",
    ),
    *TEXTS,
    argument("--corpus", "subfolder of DIR for all shards", metavar="NAME"),
    number("--job-bytes", "N", "bytes of a file per job (default: 64 MB)"),
    argument(
        "--tokenizer-tier",
        "fast: gigatoken, for texts for which its ids are proven equal to the reference's. auto: "
        "fast if a proof exists or is worth making, else the reference (default: %(default)s)",
        choices=["auto", "fast", "reference"],
        default="auto",
    ),
    argument(
        "--engine",
        "where the processes run (default: %(default)s)",
        choices=["local", "ray", "mpi"],
        default="local",
    ),
    number("--rank", "R", "index of this process among those that share the work"),
    number("--world-size", "W", "number of processes that share the work"),
)
def _tokenize(options: Namespace) -> None:
    from blendtitan.prepare.engines import started_engine
    from blendtitan.prepare.existing import removed_inputs
    from blendtitan.prepare.report import tokenize_table
    from blendtitan.prepare.tokenize import JOB_BYTES, tokenize
    from blendtitan.prepare.workers import Rank, rank_of_process
    from blendtitan.tables import show

    rank = rank_of_process(options.rank, options.world_size, os.environ)
    config = texts_config(options)(
        tokenizer=options.tokenizer,
        keys=tuple(options.key or ["text"]),
        job_bytes=JOB_BYTES if options.job_bytes is None else options.job_bytes,
        eos=options.eos_token if options.eod_id is None else options.eod_id,
        bos=options.bos,
        tier=options.tokenizer_tier,
        # Other MPI processes are workers. With Ray, one command plans all the work.
        rank=rank if options.engine == "local" else Rank(),
    )
    with started_engine(options.engine, workers=options.workers) as engine:
        if engine is None:
            return
        counts = tokenize(
            options.inputs, options.output, config, corpus=options.corpus, engine=engine
        )
    if config.rank.rank == 0:
        output = options.output.absolute()
        removed = removed_inputs(output, options.inputs, [shard.prefix for shard in counts])
        show(tokenize_table(counts, output, removed))


@command(
    "mix",
    "write a file list from epochs, tokens, shares or a temperature",
    SHARDS,
    path("--output", "FILE", "file list to write", required=True),
    flag("--overwrite", "replace a FILE that mix did not write"),
    *(
        argument(name, help, metavar="CORPUS=NUMBER", nargs="+", action="extend", default=[])
        for name, help in (
            ("--epochs", "number of times that one pass over the blend reads a corpus"),
            ("--tokens", "number of tokens of a corpus that one pass reads"),
            ("--shares", "fraction of the blend that comes from a corpus"),
        )
    ),
    number("--temperature", "T", "divide the rest by tokens ** (1 / T)", type=float),
    MAX_EPOCHS,
    number("--horizon-tokens", "N", "tokens that the run will read", type=float),
    number("--horizon-steps", "N", "optimizer steps of the run"),
    number("--global-batch-size", "N", "samples per step"),
    number("--seq-length", "N", "tokens per sample"),
)
def _mix(options: Namespace) -> None:
    from blendtitan.prepare.mix import MixConfig, horizon_from_steps, mix, mix_table, parse_numbers
    from blendtitan.storage.list_forms import find_shards, nested_corpora
    from blendtitan.tables import show

    horizon_tokens = horizon_from_steps(
        options.horizon_tokens,
        options.horizon_steps,
        options.global_batch_size,
        options.seq_length,
    )
    config = MixConfig(
        epochs=parse_numbers("--epochs", options.epochs),
        tokens=parse_numbers("--tokens", options.tokens),
        shares=parse_numbers("--shares", options.shares),
        temperature=options.temperature,
        max_epochs=options.max_epochs,
        horizon_tokens=horizon_tokens,
    )
    corpora = mix(options.inputs, options.output, config, overwrite=options.overwrite)
    show(mix_table(corpora, horizon_tokens=horizon_tokens))
    for folder in (each for each in options.inputs if each.is_dir()):
        if warning := nested_corpora(folder, find_shards(folder)):
            complain(warning)


@command(
    "demo",
    "make small corpora of real text, ready to train on",
    path("--output", "DIR", "folder of the demo", required=True),
    number("--vocab-size", "N", "size of the vocabulary (default: %(default)s)", default=4096),
)
def _demo(options: Namespace) -> None:
    from blendtitan.prepare.demo import prepare_demo
    from blendtitan.prepare.mix import mix_table
    from blendtitan.tables import show

    corpora = prepare_demo(options.output, vocab_size=options.vocab_size)
    if corpora is None:
        say(f"{options.output}: the demo is complete, nothing to do")
    else:
        show(mix_table(corpora))
    folder = shlex.quote(str(options.output))
    say(
        f"To train on these corpora: blendtitan init my-run --data {folder}/text --tokenizer "
        f"{folder}/tokenizer"
    )
