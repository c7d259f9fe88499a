"""``blendtitan verify``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say, say_json

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
             describe its shard, and the shards of a folder or list must be of one tokenizer; with
             --tokenizer, of that one. Of shards without a record, tokens of up to 48 are compared
  the ids    with --tokenizer: documents spread over each shard are decoded and encoded again
             (--compare-documents). Ids that differ from those of their own text are a fault;
             documents whose text cannot be recovered exactly are counted. Shards that the fast
             tokenizer tier encoded before its ids were proven are a fault as well

--tokenizer also gives vocabulary and EOD. Where no EOD is named, it is taken from the records
beside the shard, PREFIX.tokenizer.json or PREFIX.ends.json. Without a vocabulary, ids are only
checked not to be negative. Without an EOD, document ends are not checked, and the report says so.

Documents without tokens are sound: Megatron-LM writes an empty text so. What documents begin with
is said below the table, and how many consist of EOD only or, with --tokenizer, contain the token
for unknown text. Faults that `blendtitan repair` corrects are recognised: EODs that were
appended without being counted, a lost document index, wrong pointers.

How documents end is kept beside each shard, in PREFIX.ends.json with the sizes and times of both
files, so that training knows it without looking at the documents again. A record made for another
EOD is replaced only if the shard passes with this one. --no-record writes nothing.

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
        help="what made the shards; compared with their records or tokens",
    )
    add("--vocab-size", metavar="N", type=int, help="ids are below this (default: tokenizer's)")
    add(
        "--eod-id",
        metavar="ID",
        type=int,
        help="token that ends documents (default: the tokenizer's EOS, else as recorded)",
    )
    add(
        "--compare-documents",
        metavar="N",
        type=int,
        default=1000,
        help="documents of each shard to encode again with --tokenizer (default: %(default)s)",
    )
    add("--threads", metavar="N", type=int, help="shards read at once (default: one per core)")
    add("--no-record", action="store_true", help="write nothing beside the shards")
    add("--json", action="store_true", help="print JSON in place of a table")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.prepare.records import unproven_problem
    from blendtitan.shards.verify import (
        Expected,
        check_sound,
        record_document_ends,
        verify,
        verify_json,
        verify_notes,
        verify_table,
    )
    from blendtitan.shards.verify_tokenizers import verify_tokenizers
    from blendtitan.tables import show

    vocab_size, eod_id = options.vocab_size, options.eod_id
    tokenizer = encoding = None
    symbols = None
    if options.tokenizer is not None:
        from blendtitan.shards.encoding import Encoding, text_symbols
        from blendtitan.tokenizers import ABSENT, load_tokenizer

        tokenizer = load_tokenizer(options.tokenizer)
        vocab_size = tokenizer.vocab_size if vocab_size is None else vocab_size
        if eod_id is None and tokenizer.eos_id != ABSENT:
            eod_id = tokenizer.eos_id
        symbols = text_symbols(tokenizer)
        encoding = Encoding(tokenizer, eod_id, options.compare_documents)
    expected = Expected(vocab_size=vocab_size, eod_id=eod_id, encoding=encoding, symbols=symbols)
    shards = verify(options.inputs, expected, threads=options.threads)
    for shard in shards if encoding is not None else ():
        shard.problems += filter(None, [unproven_problem(shard.prefix)])
    verify_tokenizers(options.inputs, shards, tokenizer, eod_id=eod_id)
    if not options.no_record:
        record_document_ends(shards)
    if options.json:
        say_json(verify_json(shards))
    else:
        show(verify_table(shards))
        for note in verify_notes(shards):
            say(note)
    check_sound(shards)
