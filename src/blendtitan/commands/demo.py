"""``blendtitan demo``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say

SUMMARY = "small real corpora, ready to train on"

MANUAL = """\
Make three corpora of real text without any download, ready to train on: code (the standard
library's sources), reference (the language reference and docstrings) and readmes (descriptions of
installed distributions); a SentencePiece tokenizer trained on them; shards; and a file list.

A complete demo is left as it is, an interrupted one is made anew. DIR/demo.txt marks the folder as
a demo; files of the same names in any other folder are an error, and stay as they are.
"""

EXAMPLE = """\
example:
  blendtitan demo --output data/demo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("--output", metavar="DIR", required=True, type=local_path, help="folder of the demo")
    add(
        "--vocab-size",
        metavar="N",
        type=int,
        default=4096,
        help="ids of the tokenizer (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.prepare.demo import prepare_demo
    from blendtitan.prepare.mix import mix_table
    from blendtitan.tables import show

    corpora = prepare_demo(options.output, vocab_size=options.vocab_size)
    if corpora is None:
        say(f"{options.output}: the demo is complete, nothing to do")
    else:
        show(mix_table(corpora))
