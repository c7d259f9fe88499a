"""``blendtitan tokenize``."""

import argparse
import os

from blendtitan.commands.local_path import local_path

SUMMARY = "text files to shards"

MANUAL = """\
Turn files of text into shards.

Inputs are files, folders that are searched for them, or quoted patterns such as
'data/*/part-*.parquet'; on this machine, or as URLs such as s3://bucket/text and
https://host/a.jsonl.zst (fsspec reads them; install s3fs, gcsfs or aiohttp for the stores that
need them). The name of a file says how it is read, in upper or lower case:

  .jsonl .ndjson         one JSON object a line
  .json                  JSON lines, an array, or objects over several lines
  .txt                   one document a file, or with --txt line one a line
  .csv .tsv              a column, named in the first line
  .parquet               a column
  .arrow .feather        a column of an Arrow IPC file or stream, also of datasets.save_to_disk
  .gz .zst .zstd .xz .bz2  any text format above, compressed; a name without another suffix is .json

In a folder, links are followed. Hidden files, documentation and checksums are left out, and the
log says so. Any other file that cannot be read is an error before work starts, unless
--skip-unknown is given. A file below a folder keeps its path
relative to it, a file of a pattern that below the pattern's first folders; a file named by itself
goes directly to DIR:

  text/code/a.jsonl in the folder text  ->  DIR/code/a.bin, DIR/code/a.idx    corpus code
  web.jsonl.zst named by itself         ->  DIR/web.bin, DIR/web.idx
  the same with --corpus web            ->  DIR/web/web.bin, DIR/web/web.idx  corpus web

Each text becomes a document: its tokens, then the tokenizer's EOS (or --eos-token), which counts
as a token of the document. The result is the same for any number of workers and ranks and any
--job-bytes.

Plain files are cut into jobs of --job-bytes, Parquet files into row groups; other compressed
files are one job each. Interrupted at any moment, the command can be run again: what is finished
is not done again. DIR/.blendtitan says what every shard was made of, so a changed input is made
anew; a shard of another tokenizer, key, --txt, input or program is an error, unless --overwrite
replaces it. Commands that write to one DIR at the same time must have the same tokenizer and tier.
DIR/shards.catalog lists the shards with checksums, for `blendtitan verify`, also of a copy.

A text that is not a non-empty string in UTF-8 under the key (a name, or a path such as
content.text), or that is longer than --max-document-bytes, is left out and
listed in SHARD.rejects.jsonl with its place and the reason. --max-rejects says how many may be
left out, in all files together. If there are more, the command stops and fails; finished shards
are kept. It fails as well if there is no document at all.

An input below INPUT that was removed since the last run is reported; --prune deletes its shard.

On several machines, in one of these ways; all share DIR, and each process takes the next job that
is free. Processes may come, go and be killed; the others do what they left.

  --rank R --world-size W   the same command R = 0 to W - 1; or started by Slurm, PBS or MPI,
                            which say the rank
  --engine ray              tasks of the Ray cluster that RAY_ADDRESS names, or of this machine
  --engine mpi              mpiexec -n 9 blendtitan tokenize ... --engine mpi: 8 work, 1 commands
"""

EXAMPLE = """\
example:
  blendtitan tokenize data/text --output data/tokens --tokenizer tokenizer.model --workers 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", help="file, folder or pattern; path or URL")
    add("--output", metavar="DIR", required=True, type=local_path, help="folder of the shards")
    add(
        "--tokenizer",
        metavar="PATH",
        required=True,
        type=local_path,
        help="SentencePiece .model, Hugging Face tokenizer.json, a folder with one (where it has "
        "both, tokenizer.json is read), or a name ORG/NAME in the local Hugging Face cache",
    )
    eos = parser.add_mutually_exclusive_group()
    eos.add_argument("--eos-token", metavar="TOKEN", help="token that ends documents")
    eos.add_argument("--eod-id", metavar="ID", type=int, help="the same, by its id")
    add("--bos", action="store_true", help="begin each document with the tokenizer's BOS")
    add("--workers", metavar="N", type=int, help="processes (default: one per core)")
    add(
        "--key",
        metavar="NAME",
        action="append",
        help="field or column that holds the text (default: text); given several times, each "
        "makes shards of its own, in DIR/NAME; CORPUS=NAME is for one corpus",
    )
    add(
        "--max-rejects",
        metavar="N",
        type=int,
        default=0,
        help="texts that may be left out (default: %(default)s)",
    )
    add(
        "--txt",
        choices=["file", "line"],
        default="file",
        help="documents of a .txt file: the whole file, or each line (default: %(default)s)",
    )
    add(
        "--max-document-bytes",
        metavar="N",
        type=int,
        help="longest document, or line of JSON; longer ones are left out (default: 16 MiB)",
    )
    add(
        "--skip-unknown",
        action="store_true",
        help="warn of files that cannot be read or are of an unknown format, instead of failing",
    )
    add("--corpus", metavar="NAME", help="subfolder of DIR to put the shards in")
    add(
        "--job-bytes",
        metavar="N",
        type=int,
        help="bytes of a file that one process reads in one go (default: 64 MB)",
    )
    add("--prune", action="store_true", help="delete shards whose input below INPUT is gone")
    add(
        "--overwrite",
        action="store_true",
        help="replace shards of another tokenizer, key, --txt, input or program",
    )
    add(
        "--tokenizer-tier",
        choices=["auto", "fast", "reference"],
        default="auto",
        help="fast: gigatoken, where its ids are proven equal to the reference's; auto: fast where "
        "that is proven or worth proving, else the reference (default: %(default)s)",
    )
    add(
        "--engine",
        choices=["local", "ray", "mpi"],
        default="local",
        help="where the processes run (default: %(default)s)",
    )
    add("--rank", metavar="R", type=int, help="which of the processes that share the work this is")
    add("--world-size", metavar="W", type=int, help="how many processes share the work")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.prepare.engines import started_engine
    from blendtitan.prepare.existing import removed_inputs
    from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES, ReadOptions
    from blendtitan.prepare.report import tokenize_table
    from blendtitan.prepare.tokenize import JOB_BYTES, TokenizeConfig, tokenize
    from blendtitan.prepare.workers import Rank, rank_of_process
    from blendtitan.tables import show

    rank = rank_of_process(options.rank, options.world_size, os.environ)
    config = TokenizeConfig(
        tokenizer=options.tokenizer,
        keys=tuple(options.key or ["text"]),
        max_rejects=options.max_rejects,
        job_bytes=JOB_BYTES if options.job_bytes is None else options.job_bytes,
        options=ReadOptions(
            options.txt,
            MAX_DOCUMENT_BYTES
            if options.max_document_bytes is None
            else options.max_document_bytes,
        ),
        skip_unknown=options.skip_unknown,
        prune=options.prune,
        eos=options.eos_token if options.eod_id is None else options.eod_id,
        bos=options.bos,
        overwrite=options.overwrite,
        tier=options.tokenizer_tier,
        # MPI's other processes are workers, and commands share no plan with Ray's.
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
