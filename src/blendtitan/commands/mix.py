"""``blendtitan mix``."""

import argparse

from blendtitan.commands.local_path import local_path

SUMMARY = "a file list from epochs, tokens, shares or a temperature"

MANUAL = """\
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

A corpus that is read more than --max-epochs times is an error. It counts the epochs of the whole
run where its length is given (--horizon-tokens, or --horizon-steps with --global-batch-size and
--seq-length), and the table shows them; else those of one pass over the blend. Tokens are those
of the shards; a run reads only the documents of its train split, and them a little more often.
"""

EXAMPLE = """\
example:
  blendtitan mix data/tokens --output data/file_list.txt --epochs code=2 reference=0.5
  blendtitan mix data/tokens --output data/file_list.txt --shares code=0.3 --temperature 2 \\
    --horizon-steps 10000 --global-batch-size 512 --seq-length 8192
"""

_PARTS = {
    "--epochs": "how often one pass over the blend reads a corpus",
    "--tokens": "how many tokens of a corpus one pass reads",
    "--shares": "which fraction of the blend a corpus is",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=local_path,
        help="folder, shard prefix or file list",
    )
    add("--output", metavar="FILE", required=True, type=local_path, help="file list to write")
    add("--overwrite", action="store_true", help="replace a FILE that mix did not write")
    for option, meaning in _PARTS.items():
        add(
            option,
            metavar="CORPUS=NUMBER",
            nargs="+",
            action="extend",
            default=[],
            help=meaning,
        )
    add("--temperature", metavar="T", type=float, help="divide by tokens ** (1 / T)")
    add(
        "--max-epochs",
        metavar="N",
        type=float,
        default=4.0,
        help="most often that a corpus may be read; 0: no limit (default: %(default)g)",
    )
    add("--horizon-tokens", metavar="N", type=float, help="tokens that the run will read")
    add("--horizon-steps", metavar="N", type=int, help="optimizer steps that the run will make")
    add("--global-batch-size", metavar="N", type=int, help="samples of a step")
    add("--seq-length", metavar="N", type=int, help="tokens of a sample")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
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
