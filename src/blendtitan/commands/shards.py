"""Commands that look at shards or change them: stats, verify, repair, merge and convert."""

from argparse import Namespace

from blendtitan.commands.arguments import Arguments, Command
from blendtitan.errors import ConfigError
from blendtitan.terminal import print_result, say


def _stats_arguments(add: Arguments) -> None:
    add.shards()
    made = "what made the shards; documents with unknown text or with none are counted"
    add.path("--tokenizer", "PATH", made)
    add.json()


def _stats(options: Namespace) -> None:
    from blendtitan.shards.stats import describe
    from blendtitan.tokenizers import load_tokenizer

    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer)
    report = describe(options.inputs, tokenizer)
    print_result(options.json, report.json, lambda: [report.table(), *report.notes()])
    report.check_readable()


STATS = Command(
    summary="documents, tokens and lengths of shards",
    manual="""\
Show what shards hold: documents, tokens, token type, and the shortest, the median, the 90th
percentile and the longest document in tokens; for each shard, for each corpus, and for all.

Inputs are folders of shards (first-level subfolders are corpora), prefixes of shards (the path
without .bin or .idx; the file name is the corpus), and file lists. Only the .idx files are read;
with --tokenizer also all tokens, to count documents that contain the token for unknown text or
consist of EOD only. Percentiles are exact: the shortest length that at least this part of the
documents do not exceed.

A shard that cannot be read is named and makes the command fail; the others are shown.
""",
    example="""\
example:
  blendtitan stats data/tokens
  blendtitan stats data/file_list.txt --json
""",
    add_arguments=_stats_arguments,
    run=_stats,
)


def _verify_arguments(add: Arguments) -> None:
    add.shards()
    made = "what made the shards; compared with their records or tokens"
    add.path("--tokenizer", "PATH", made)
    add.number("--vocab-size", "N", "ids are below this (default: tokenizer's)")
    eod = "token that ends documents (default: the tokenizer's EOS, else as recorded)"
    add.number("--eod-id", "ID", eod)
    again = "documents of each shard to encode again with --tokenizer (default: %(default)s)"
    add.number("--compare-documents", "N", again, default=1000)
    add.number("--threads", "N", "shards read at once (default: one per core)")
    add.flag("--no-record", "write nothing beside the shards")
    add.json()


def _verify(options: Namespace) -> None:
    from blendtitan.prepare.records import unproven_problem
    from blendtitan.shards.report import verify_notes, verify_table, verify_tokenizers
    from blendtitan.shards.verify import Expected, check_sound, record_document_ends, verify
    from blendtitan.tokenizers import load_tokenizer

    tokenizer = None
    expected = Expected(vocab_size=options.vocab_size, eod_id=options.eod_id)
    if options.tokenizer is not None:
        tokenizer = load_tokenizer(options.tokenizer)
        expected = expected.with_tokenizer(tokenizer, documents=options.compare_documents)
    shards = verify(options.inputs, expected, threads=options.threads)
    for shard in shards if tokenizer is not None else ():
        shard.problems += filter(None, [unproven_problem(shard.prefix)])
    verify_tokenizers(options.inputs, shards, tokenizer, eod_id=expected.eod_id)
    if not options.no_record:
        record_document_ends(shards)
    print_result(
        options.json,
        lambda: {"shards": [shard.json() for shard in shards]},
        lambda: [verify_table(shards), *verify_notes(shards)],
    )
    check_sound(shards)


VERIFY = Command(
    summary="check every entry and every token of shards",
    manual="""\
Check shards completely, including everything that opening and reading them take on trust.

  the .idx   header and size; every length; every pointer against the lengths before it; the
             document index, which must never fall
  the .bin   its size against the lengths; every token id against the vocabulary (--vocab-size);
             the last token of every document against EOD (--eod-id). All documents end in EOD,
             or none does; both can be trained on, a mixture cannot
  catalog    if shards.catalog, which `blendtitan tokenize` writes, lies in the shard's folder or
             above: checksums of both files, and that no listed shard is missing
  tokenizer  PREFIX.tokenizer.json, which `blendtitan tokenize` writes beside each shard: it must
             describe its shard, and the shards of a folder or list must be of one tokenizer; with
             --tokenizer, of that one. Of shards without a record, tokens of up to 48 are compared
  the ids    with --tokenizer: documents spread over each shard are decoded and encoded again
             (--compare-documents). Ids that differ from those of their own text are a fault;
             documents whose text cannot be recovered exactly are counted. Shards that the fast
             tokenizer tier encoded before its ids were proven are a fault as well

--tokenizer also gives vocabulary and EOD. Without an EOD from there or --eod-id, it is taken from
the records beside the shard, PREFIX.tokenizer.json or PREFIX.ends.json. Without a vocabulary, ids
are only checked not to be negative. Without any EOD, document ends are not checked, and the report
says so.

Documents without tokens are sound: Megatron-LM writes them for empty texts. Below the table stands
what documents begin with, and how many consist of EOD only or, with --tokenizer, contain the token
for unknown text. Faults that `blendtitan repair` corrects are recognised: EODs that were
appended without being counted, a lost document index, wrong pointers.

How documents end is recorded beside each shard, in PREFIX.ends.json with the sizes and times of
both files, so that training need not look at the documents again. A record made for another EOD is
replaced only if the shard passes with this one. --no-record writes nothing.

Inputs are folders of shards, prefixes of shards (the path without .bin or .idx) and file lists.
All shards are checked and shown; if one is bad, the exit status is 1.
""",
    example="""\
example:
  blendtitan verify data/tokens --tokenizer tokenizer.model
  blendtitan verify data/file_list.txt --vocab-size 32000 --eod-id 2 --json
""",
    add_arguments=_verify_arguments,
    run=_verify,
)


def _repair_arguments(add: Arguments) -> None:
    add.shards()
    eod = add.one_of(required=True)
    eod.number("--eod-id", "ID", "token that ends documents")
    eod.path("--tokenizer", "PATH", "its EOS ends documents")


def _repair(options: Namespace) -> None:
    from blendtitan.shards.repair import KEPT_SUFFIX, check_repaired, repair

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
            f"{shard.prefix.name}{KEPT_SUFFIX}"
        )
    num_good = sum(not shard.corrections and shard.error is None for shard in shards)
    say(f"{len(repaired):,} repaired, {num_good:,} had nothing wrong")
    check_repaired(shards)


REPAIR = Command(
    summary="correct .idx files that count no EODs, lost their document index, or point wrong",
    manual="""\
Correct .idx files that are wrong in one of three known ways. The tokens are never changed.

  EODs not counted     the length of each document is one short, so document k seems to start k
                       tokens early. One is added to the last sequence of each document that has
                       one; Megatron-LM writes an empty text as a document of no sequence
  document index lost  it holds nothing but a 0, as after some merges. Every sequence becomes a
                       document
  pointers wrong       the lengths describe the .bin exactly. The pointers are computed from them

A shard is corrected only after all of its tokens proved the correction: every document then ends
in EOD (where only pointers were wrong, all documents or none). Anything else is refused, and the
shard is not touched. A sound shard is left alone, so the command can be run again. A shard whose
.idx is right gets the checks of `blendtitan verify`: faults are reported with what to do about
them, and the exit status is 1.

The new .idx replaces the old one in one step, so an interruption leaves one or the other. The old
one is kept as .idx.before-repair.

Inputs are folders of shards, prefixes of shards (the path without .bin or .idx) and file lists.
""",
    example="""\
example:
  blendtitan repair data/tokens --tokenizer tokenizer.model
  blendtitan repair data/tokens/web/part_00 --eod-id 2
""",
    add_arguments=_repair_arguments,
    run=_repair,
)


def _merge_arguments(add: Arguments) -> None:
    add.shards()
    add.path("--output", "DIR", "folder of the new shards", required=True)
    most = "tokens that a new shard has at most, such as 2e9"
    add.number("--target-tokens", "N", most, required=True, type=float)
    add.flag("--overwrite", "replace different shards of the same names")


def _merge(options: Namespace) -> None:
    from blendtitan.prepare.merge import merge, merge_table
    from blendtitan.tables import show

    merged = merge(
        options.inputs,
        options.output,
        target_tokens=options.target_tokens,
        overwrite=options.overwrite,
    )
    show(merge_table(merged))


MERGE = Command(
    summary="many shards into few",
    manual="""\
Join neighbouring shards of each corpus into larger ones, documents in order:

  DIR/CORPUS/00000.bin, .idx    DIR/CORPUS/00001.bin, .idx    ...

Each new shard takes shards as long as they fit into --target-tokens; a larger shard becomes one of
its own. No shard is cut. The inputs stay as they are.

Inputs are folders of shards (first-level subfolders are corpora), prefixes of shards (the path
without .bin or .idx; the file name is the corpus), and file lists. Folders are read in the order
of their names, lists line by line. The shards of a corpus must have one token type.

Tokens are copied by the operating system, and every entry of the .idx files is checked. Memory
holds the .idx of one input at a time. A new shard appears when it is complete and has been opened
as a reader does. An interrupted command can be run again: shards in DIR that already hold, byte for
byte, what would be written are kept. A different shard of the same name is an error, unless
--overwrite replaces it. DIR may hold no other shards.
""",
    example="""\
example:
  blendtitan merge data/tokens --output data/merged --target-tokens 2e9
""",
    add_arguments=_merge_arguments,
    run=_merge,
)


def _convert_arguments(add: Arguments) -> None:
    add.shards()
    add.path("--output", "DIR", "folder of the new shards", required=True)
    add.flag("--overwrite", "replace shards that are there already")


def _convert(options: Namespace) -> None:
    from blendtitan.prepare.convert import convert

    for shard in convert(options.inputs, options.output, overwrite=options.overwrite):
        say(
            f"{shard.prefix}: {shard.num_documents:,} documents, {shard.num_tokens:,} tokens, from "
            f"{shard.source} ({shard.description})"
        )


CONVERT = Command(
    summary="shards of other formats into Megatron's, without tokenising again",
    manual="""\
Convert shards that other programs made into the format that training reads. The format of each
input is recognised by its content:

  TNTIDX      the older .bin/.idx of fairseq, and of gpt-neox and Megatron-LM with the dataset
              implementation lazy or cached. fairseq's files store every id plus 1, which is
              subtracted, and each of their items becomes a document
  multimodal  Megatron's shards with one mode per sequence, if all modes are 0 (text): the modes
              are left out

Every entry of an index is checked before anything is written. Tokens are copied in blocks; memory
holds the .idx of one shard at a time. A new shard appears when it is complete; an existing one is
not replaced without --overwrite. The inputs stay as they are.

Inputs are folders of shards, whose shards keep their place in the folder, prefixes of shards (the
path without .bin or .idx), and file lists.
""",
    example="""\
example:
  blendtitan convert old/tokens --output data/tokens
""",
    add_arguments=_convert_arguments,
    run=_convert,
)
