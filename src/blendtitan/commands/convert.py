"""``blendtitan convert``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say

SUMMARY = "shards of other formats into Megatron's, without tokenising again"

MANUAL = """\
Write shards that other programs made in the format that is trained on. The format of each input
is recognised by its content:

  TNTIDX      the older .bin/.idx of fairseq, and of gpt-neox and Megatron-LM with the dataset
              implementation lazy or cached. fairseq's files store every id plus 1, which is
              subtracted, and each of their items becomes a document
  multimodal  Megatron's shards with one mode per sequence, if all modes are 0 (text): the modes
              are left out

Every entry of an index is checked before anything is written. Tokens are copied in blocks, and
memory does not grow with the shards. A new shard appears when it is complete; one that is there
already is not replaced without --overwrite. The inputs stay as they are.

Inputs are folders of shards, whose shards keep their place in the folder, prefixes of shards (the
path without .bin or .idx), and file lists.
"""

EXAMPLE = """\
example:
  blendtitan convert old/tokens --output data/tokens
"""


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
    add("--output", metavar="DIR", required=True, type=local_path, help="folder of the new shards")
    add("--overwrite", action="store_true", help="replace shards that are there already")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.prepare.convert import convert

    for shard in convert(options.inputs, options.output, overwrite=options.overwrite):
        say(
            f"{shard.prefix}: {shard.num_documents:,} documents, {shard.num_tokens:,} tokens, from "
            f"{shard.source} ({shard.description})"
        )
