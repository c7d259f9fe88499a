"""``blendtitan merge``."""

import argparse

from blendtitan.commands.local_path import local_path

SUMMARY = "many shards into few"

MANUAL = """\
Join neighbouring shards of each corpus into larger ones, documents in order:

  DIR/CORPUS/00000.bin, .idx    DIR/CORPUS/00001.bin, .idx    ...

Each new shard takes shards as long as they fit into --target-tokens; a shard that is larger by
itself becomes one of its own. No shard is cut. The inputs stay as they are.

Inputs are folders of shards (first-level subfolders are corpora), prefixes of shards (the path
without .bin or .idx; the file name is the corpus), and file lists. Folders are read in the order
of their names, lists line by line. The shards of a corpus must have one token type.

Tokens are copied by the operating system, every entry of the .idx files is checked, and memory
does not grow with the shards. A new shard appears when it is complete and has been opened as a
reader does. An interrupted command can be run again: shards in DIR that already hold, byte for
byte, what would be written are kept. A different shard of the same name is an error, unless
--overwrite replaces it. DIR may hold no other shards.
"""

EXAMPLE = """\
example:
  blendtitan merge data/tokens --output data/merged --target-tokens 2e9
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
    add(
        "--target-tokens",
        metavar="N",
        required=True,
        type=float,
        help="tokens that a new shard has at most, such as 2e9",
    )
    add("--overwrite", action="store_true", help="replace different shards of the same names")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.prepare.merge import merge, merge_table
    from blendtitan.tables import show

    merged = merge(
        options.inputs,
        options.output,
        target_tokens=options.target_tokens,
        overwrite=options.overwrite,
    )
    show(merge_table(merged))
