"""``blendtitan verify``."""

import argparse
import json
from pathlib import Path

SUMMARY = "check every entry and every token of shards"

MANUAL = """\
Check shards completely: all of what opening and reading them take on trust.

  the .idx   header and size; every length; every pointer against the lengths before it; the
             document index, which must never fall
  the .bin   its size against the lengths; every token id against the vocabulary (--vocab-size);
             the last token of every document against EOD (--eod-id). All documents end in EOD,
             or none does; both can be trained on, a mixture cannot
  catalog    where shards.catalog, which `blendtitan tokenize` writes, lies in the
             shard's folder or above: checksums of both files, and that no listed shard is missing

  tokenizer  PREFIX.tokenizer.json, which `blendtitan tokenize` writes beside each shard: it must
             describe its shard, and the shards of a folder or list must be of one tokenizer

--tokenizer gives vocabulary and EOD, and is compared with the tokenizer that made each shard: by
its record, or, of shards without one, by tokens of up to 48 of them, which must come back when
their text is encoded again. Without --tokenizer or the other two, ids are only checked not to be
negative, and document ends are not checked.

Shards whose EODs were appended without being counted, so that document k starts k tokens early,
are recognised: `blendtitan repair` mends them.

Inputs are folders of shards, prefixes of shards (the path without .bin or .idx) and file lists.
All shards are checked, and the report shows all; where one is bad, the exit status is 1.
"""

EXAMPLE = """\
example:
  blendtitan verify data/tokens --tokenizer tokenizer.model
  blendtitan verify data/file_list.txt --vocab-size 32000 --eod-id 2 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", type=Path, help="folder, shard prefix or file list")
    add(
        "--tokenizer",
        metavar="PATH",
        type=Path,
        help="what made the shards; compared with their records or tokens",
    )
    add("--vocab-size", metavar="N", type=int, help="ids are below this (default: tokenizer's)")
    add("--eod-id", metavar="ID", type=int, help="ends documents (default: the tokenizer's EOS)")
    add("--threads", metavar="N", type=int, help="shards read at once (default: one per core)")
    add("--json", action="store_true", help="print JSON in place of a table")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.inspection.verify import (
        Expected,
        check_sound,
        verify,
        verify_json,
        verify_notes,
        verify_table,
    )
    from blendtitan.inspection.verify_tokenizers import verify_tokenizers
    from blendtitan.tables import show

    vocab_size, eod_id, tokenizer = options.vocab_size, options.eod_id, None
    if options.tokenizer is not None:
        from blendtitan.tokenizers import ABSENT, load_tokenizer

        tokenizer = load_tokenizer(options.tokenizer)
        vocab_size = tokenizer.vocab_size if vocab_size is None else vocab_size
        if eod_id is None and tokenizer.eos_id != ABSENT:
            eod_id = tokenizer.eos_id
    expected = Expected(vocab_size=vocab_size, eod_id=eod_id)
    shards = verify(options.inputs, expected, threads=options.threads)
    verify_tokenizers(options.inputs, shards, tokenizer, eod_id=eod_id)
    if options.json:
        print(json.dumps(verify_json(shards), indent=2))
    else:
        show(verify_table(shards))
        for note in verify_notes(shards):
            print(note)
    check_sound(shards)
