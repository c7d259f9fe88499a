"""Commands that make data ready for training: tokenize, mix and demo."""

import os
from argparse import Namespace

from blendtitan.commands.arguments import Arguments, Command
from blendtitan.terminal import say


def _tokenize_arguments(add: Arguments) -> None:
    add.add("inputs", "file, folder or pattern; path or URL", metavar="INPUT", nargs="+")
    add.path("--output", "DIR", "folder of the shards", required=True)
    add.path(
        "--tokenizer",
        "PATH",
        "SentencePiece .model, Hugging Face tokenizer.json, a folder with one (where it has "
        "both, tokenizer.json is read), or a name ORG/NAME in the local Hugging Face cache",
        required=True,
    )
    eos = add.one_of()
    eos.add("--eos-token", "token that ends documents", metavar="TOKEN")
    eos.number("--eod-id", "ID", "the same, by its id")
    add.flag("--bos", "begin each document with the tokenizer's BOS")
    add.number("--workers", "N", "processes (default: one per core)")
    add.add(
        "--key",
        "field or column that holds the text (default: text); given several times, each makes "
        "shards of its own, in DIR/NAME; CORPUS=NAME is for one corpus",
        metavar="NAME",
        action="append",
    )
    rejects = "texts that may be left out (default: %(default)s)"
    add.number("--max-rejects", "N", rejects, default=0)
    txt = "documents of a .txt file: the whole file, or each line (default: %(default)s)"
    add.add("--txt", txt, choices=["file", "line"], default="file")
    longest = "longest document, or line of JSON; longer ones are left out (default: 16 MiB)"
    add.number("--max-document-bytes", "N", longest)
    unknown = "warn of files that cannot be read or are of an unknown format, instead of failing"
    add.flag("--skip-unknown", unknown)
    add.add("--corpus", "subfolder of DIR to put the shards in", metavar="NAME")
    job = "bytes of a file that one process reads in one go (default: 64 MB)"
    add.number("--job-bytes", "N", job)
    add.flag("--prune", "delete shards whose input below INPUT is gone")
    add.flag("--overwrite", "replace shards of another tokenizer, key, --txt, input or program")
    add.add(
        "--tokenizer-tier",
        "fast: gigatoken, where its ids are proven equal to the reference's; auto: fast where "
        "that is proven or worth proving, else the reference (default: %(default)s)",
        choices=["auto", "fast", "reference"],
        default="auto",
    )
    engine = "where the processes run (default: %(default)s)"
    add.add("--engine", engine, choices=["local", "ray", "mpi"], default="local")
    add.number("--rank", "R", "which of the processes that share the work this is")
    add.number("--world-size", "W", "how many processes share the work")


def _tokenize(options: Namespace) -> None:
    from blendtitan.prepare.engines import started_engine
    from blendtitan.prepare.existing import removed_inputs
    from blendtitan.prepare.input_file import MAX_DOCUMENT_BYTES, ReadOptions
    from blendtitan.prepare.report import tokenize_table
    from blendtitan.prepare.tokenize import JOB_BYTES, TokenizeConfig, tokenize
    from blendtitan.prepare.workers import Rank, rank_of_process
    from blendtitan.tables import show

    rank = rank_of_process(options.rank, options.world_size, os.environ)
    longest = options.max_document_bytes
    config = TokenizeConfig(
        tokenizer=options.tokenizer,
        keys=tuple(options.key or ["text"]),
        max_rejects=options.max_rejects,
        job_bytes=JOB_BYTES if options.job_bytes is None else options.job_bytes,
        options=ReadOptions(options.txt, MAX_DOCUMENT_BYTES if longest is None else longest),
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


TOKENIZE = Command(
    summary="text files to shards",
    manual="""\
Turn text files into shards.

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
--skip-unknown is given. A file below a folder keeps its path relative to it, a file of a pattern
its path below the pattern's first folders; a file named by itself goes directly to DIR:

  text/code/a.jsonl in the folder text  ->  DIR/code/a.bin, DIR/code/a.idx    corpus code
  web.jsonl.zst named by itself         ->  DIR/web.bin, DIR/web.idx
  the same with --corpus web            ->  DIR/web/web.bin, DIR/web/web.idx  corpus web

Each text becomes a document: its tokens, then the tokenizer's EOS (or --eos-token), which counts
as a token of the document. The result is the same for any number of workers and ranks and any
--job-bytes.

Plain files are cut into jobs of --job-bytes, Parquet files into row groups; other compressed
files are one job each. The command can be interrupted at any moment and run again: finished work
is not repeated. DIR/.blendtitan records what every shard was made of, so a changed input is made
anew; a shard of another tokenizer, key, --txt, input or program is an error, unless --overwrite
replaces it. Commands that write to one DIR at the same time must have the same tokenizer and tier.
DIR/shards.catalog lists the shards with checksums, for `blendtitan verify`, also of a copy.

A text that is not a non-empty UTF-8 string under the key (a name, or a path such as content.text),
or that is longer than --max-document-bytes, is left out and listed in SHARD.rejects.jsonl with its
place and the reason. --max-rejects limits how many may be left out, in all files together. If
there are more, the command stops and fails; finished shards are kept. It also fails if there is no
document at all.

An input below INPUT that was removed since the last run is reported; --prune deletes its shard.

To work on several machines, choose one of these ways; all share DIR, and each process takes the
next free job. Processes may come, go and be killed; the others finish what they left.

  --rank R --world-size W   the same command R = 0 to W - 1; or started by Slurm, PBS or MPI,
                            which say the rank
  --engine ray              tasks of the Ray cluster that RAY_ADDRESS names, or of this machine
  --engine mpi              mpiexec -n 9 blendtitan tokenize ... --engine mpi: 8 work, 1 commands
""",
    example="""\
example:
  blendtitan tokenize data/text --output data/tokens --tokenizer tokenizer.model --workers 8
""",
    add_arguments=_tokenize_arguments,
    run=_tokenize,
)


def _mix_arguments(add: Arguments) -> None:
    add.shards()
    add.path("--output", "FILE", "file list to write", required=True)
    add.flag("--overwrite", "replace a FILE that mix did not write")
    parts = {
        "--epochs": "how often one pass over the blend reads a corpus",
        "--tokens": "how many tokens of a corpus one pass reads",
        "--shares": "which fraction of the blend a corpus is",
    }
    for name, help in parts.items():
        add.add(name, help, metavar="CORPUS=NUMBER", nargs="+", action="extend", default=[])
    add.number("--temperature", "T", "divide by tokens ** (1 / T)", type=float)
    most = "most often that a corpus may be read; 0: no limit (default: %(default)g)"
    add.number("--max-epochs", "N", most, type=float, default=4.0)
    add.number("--horizon-tokens", "N", "tokens that the run will read", type=float)
    add.number("--horizon-steps", "N", "optimizer steps that the run will make")
    add.number("--global-batch-size", "N", "samples of a step")
    add.number("--seq-length", "N", "tokens of a sample")


def _mix(options: Namespace) -> None:
    from blendtitan.prepare.mix import MixConfig, horizon_from_steps, mix, mix_table, parse_numbers
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


MIX = Command(
    summary="a file list from epochs, tokens, shares or a temperature",
    manual="""\
Write a file list that gives each corpus its part of the blend.

Inputs are folders of shards (first-level subfolders are corpora), prefixes of shards (the path
without .bin or .idx; the file name is the corpus), and file lists, whose corpora are kept and
whose weights are not. Say how much of each corpus is read in one of two ways:

  what one pass over the whole blend reads; a corpus that is not named is read once
    --epochs code=2         code twice; epochs may be fractions
    --tokens web=1e9        a billion tokens of web

  what fraction of the blend it is; corpora that are not named divide the rest by their size
    --shares code=0.3       code is 30 % of the blend
    --temperature 2         the rest is divided by tokens ** (1 / 2): small corpora get more

--epochs and --tokens may be used together, for different corpora; so may --shares and
--temperature. The two ways exclude each other. Weights are written exactly.

A corpus that is read more than --max-epochs times is an error. Epochs are those of the whole run if
its length is given (--horizon-tokens, or --horizon-steps with --global-batch-size and
--seq-length), and the table shows them; else those of one pass over the blend. Tokens are those
of the shards; a run reads only the documents of its train split, and them a little more often.
""",
    example="""\
example:
  blendtitan mix data/tokens --output data/file_list.txt --epochs code=2 reference=0.5
  blendtitan mix data/tokens --output data/file_list.txt --shares code=0.3 --temperature 2 \\
    --horizon-steps 10000 --global-batch-size 512 --seq-length 8192
""",
    add_arguments=_mix_arguments,
    run=_mix,
)


def _demo_arguments(add: Arguments) -> None:
    add.path("--output", "DIR", "folder of the demo", required=True)
    ids = "ids of the tokenizer (default: %(default)s)"
    add.number("--vocab-size", "N", ids, default=4096)


def _demo(options: Namespace) -> None:
    from blendtitan.prepare.demo import prepare_demo
    from blendtitan.prepare.mix import mix_table
    from blendtitan.tables import show

    corpora = prepare_demo(options.output, vocab_size=options.vocab_size)
    if corpora is None:
        say(f"{options.output}: the demo is complete, nothing to do")
    else:
        show(mix_table(corpora))


DEMO = Command(
    summary="small real corpora, ready to train on",
    manual="""\
Make three corpora of real text without any download, ready to train on: code (the standard
library's sources), reference (the language reference and docstrings) and readmes (descriptions of
installed distributions); a SentencePiece tokenizer trained on them; shards; and a file list.

A complete demo is left as it is, an interrupted one is made anew. DIR/demo.txt marks the folder as
a demo; files of the same names in any other folder are an error, and stay as they are.
""",
    example="""\
example:
  blendtitan demo --output data/demo
""",
    add_arguments=_demo_arguments,
    run=_demo,
)
