"""``blendtitan repair``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.errors import ConfigError
from blendtitan.terminal import say

SUMMARY = "correct .idx files that count no EODs, lost their document index, or point wrong"

MANUAL = """\
Correct .idx files that are wrong in one of three known ways. The tokens are never changed.

  EODs not counted     the length of each document is one short, so document k seems to start k
                       tokens early. One is added to the last sequence of each document that has
                       one; Megatron-LM writes an empty text as a document of no sequence
  document index lost  it holds nothing but a 0, as after some merges. Every sequence becomes a
                       document
  pointers wrong       the lengths describe the .bin exactly. The pointers are computed from them

A shard is corrected only after all of its tokens proved the correction: every document then ends
in EOD (where only pointers were wrong, all documents or none). Anything else is refused, and the
shard is not touched. A shard with nothing wrong is left alone, so the command can be run again.
A shard whose .idx is right gets the checks of `blendtitan verify`: faults in it are reported with
what to do about them, and the exit status is 1.

The new .idx replaces the old one in one step, so an interruption leaves one or the other. The old
one is kept as .idx.before-repair.

Inputs are folders of shards, prefixes of shards (the path without .bin or .idx) and file lists.
"""

EXAMPLE = """\
example:
  blendtitan repair data/tokens --tokenizer tokenizer.model
  blendtitan repair data/tokens/web/part_00 --eod-id 2
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
    eod = parser.add_mutually_exclusive_group(required=True)
    eod.add_argument("--eod-id", metavar="ID", type=int, help="token that ends documents")
    eod.add_argument("--tokenizer", metavar="PATH", type=local_path, help="its EOS ends documents")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.shards.repair import check_repaired, repair

    eod_id = options.eod_id
    if eod_id is None:
        from blendtitan.tokenizers import ABSENT, load_tokenizer

        eod_id = load_tokenizer(options.tokenizer).eos_id
        if eod_id == ABSENT:
            raise ConfigError(f"{options.tokenizer}: has no EOS. Give --eod-id instead.")
    shards = repair(options.inputs, eod_id=eod_id)
    repaired = [shard for shard in shards if shard.corrections]
    for shard in repaired:
        say(
            f"{shard.prefix}: repaired ({', '.join(shard.corrections)}); the old .idx is "
            f"{shard.prefix.name}.idx.before-repair"
        )
    num_good = sum(not shard.corrections and shard.error is None for shard in shards)
    say(f"{len(repaired):,} repaired, {num_good:,} had nothing wrong")
    check_repaired(shards)
