"""``blendtitan repair``."""

import argparse
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.terminal import say

SUMMARY = "count the EODs of shards that were written without counting them"

MANUAL = """\
Mend shards whose EODs were appended without being counted in the .idx: every length is one
short, so document k seems to start k tokens early. The tokens are right, and stay as they are.

A shard is mended only after it was proved, from all of its tokens, that with one more token each
every document ends in EOD. What cannot be proved, or has anything else wrong, is refused and not
touched. A shard with nothing wrong is left alone, so the command may be run again.

The new .idx takes the place of the old one in one step; an interruption at any moment leaves
the one or the other. The old one is kept as .idx.before-repair.

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
    add("inputs", metavar="INPUT", nargs="+", type=Path, help="folder, shard prefix or file list")
    eod = parser.add_mutually_exclusive_group(required=True)
    eod.add_argument("--eod-id", metavar="ID", type=int, help="token that ends documents")
    eod.add_argument("--tokenizer", metavar="PATH", type=Path, help="its EOS ends documents")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.inspection.repair import check_repaired, repair

    eod_id = options.eod_id
    if eod_id is None:
        from blendtitan.tokenizers import ABSENT, load_tokenizer

        eod_id = load_tokenizer(options.tokenizer).eos_id
        if eod_id == ABSENT:
            raise ConfigError(f"{options.tokenizer}: has no EOS. Give --eod-id instead.")
    shards = repair(options.inputs, eod_id=eod_id)
    for shard in shards:
        if shard.repaired:
            say(f"{shard.prefix}: repaired; the old .idx is {shard.prefix.name}.idx.before-repair")
    num_good = sum(not shard.repaired and shard.error is None for shard in shards)
    say(f"{sum(shard.repaired for shard in shards):,} repaired, {num_good:,} had nothing wrong")
    check_repaired(shards)
