"""``blendtitan stats``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say, say_json

SUMMARY = "documents, tokens and lengths of shards"

MANUAL = """\
Show what shards hold: documents, tokens, token type, and the shortest, the median, the 90th
percentile and the longest document in tokens; for each shard, for each corpus, and for all.

Inputs are folders of shards (first-level subfolders are corpora), prefixes of shards (the path
without .bin or .idx; the file name is the corpus), and file lists. Only the .idx files are read;
with --tokenizer also all tokens, to count documents that contain the token for unknown text or
consist of EOD only.
Percentiles are exact: the shortest length that so many documents do not exceed.

A shard that cannot be read is named and makes the command fail; the others are shown.
"""

EXAMPLE = """\
example:
  blendtitan stats data/tokens
  blendtitan stats data/file_list.txt --json
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
    add(
        "--tokenizer",
        metavar="PATH",
        type=local_path,
        help="what made the shards; documents with unknown text or with none are counted",
    )
    add("--json", action="store_true", help="print JSON in place of a table")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.shards.stats import (
        TokenIds,
        check_readable,
        describe,
        report_json,
        report_notes,
        report_table,
    )
    from blendtitan.tables import show

    ids = None
    if options.tokenizer is not None:
        from blendtitan.shards.encoding import text_symbols
        from blendtitan.tokenizers import ABSENT, load_tokenizer

        tokenizer = load_tokenizer(options.tokenizer)
        eod_id = None if tokenizer.eos_id == ABSENT else tokenizer.eos_id
        ids = TokenIds(eod_id, text_symbols(tokenizer))
    report = describe(options.inputs, ids)
    if options.json:
        say_json(report_json(report))
    else:
        show(report_table(report))
        for note in report_notes(report):
            say(note)
    check_readable(report)
