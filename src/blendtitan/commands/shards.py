"""Commands that inspect or change shards: stats, verify, repair, merge, index and convert."""

from argparse import Namespace
from typing import TYPE_CHECKING

from blendtitan.commands.arguments import (
    LOCAL_SHARDS,
    SHARDS,
    argument,
    command,
    data_path,
    flag,
    json_flag,
    names,
    number,
    one_of,
    path,
)
from blendtitan.errors import ConfigError
from blendtitan.terminal import complain, print_result, say
from blendtitan.visible import counted, some_of

if TYPE_CHECKING:
    from blendtitan.prepare.convert import ConvertedShard
    from blendtitan.prepare.convert_rows import ConvertedFile


@command(
    "stats",
    "show documents, tokens and document lengths of shards",
    SHARDS,
    path(
        "--tokenizer",
        "PATH",
        "tokenizer of the shards; also counts documents with the unknown token, and empty ones",
        type=data_path,
    ),
    json_flag(),
)
def _stats(options: Namespace) -> None:
    from blendtitan.shards.stats import describe
    from blendtitan.tokenizers import load_tokenizer

    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer)
    report = describe(options.inputs, tokenizer)
    print_result(options.json, report.json, lambda: [report.table(), *report.notes()])
    report.check_readable()


@command(
    "verify",
    "check every entry and every token of shards",
    SHARDS,
    path(
        "--tokenizer",
        "PATH",
        "tokenizer of the shards, compared with their records or tokens",
        type=data_path,
    ),
    number("--vocab-size", "N", "size of the vocabulary (default: the tokenizer's)"),
    number(
        "--eod-id",
        "ID",
        "id of the token that ends documents (default: the tokenizer's EOS, or as recorded)",
    ),
    number(
        "--compare-documents",
        "N",
        "with --tokenizer: documents of each shard to encode again (default: %(default)s)",
        default=1000,
    ),
    number("--threads", "N", "shards to read at the same time (default: one per core)"),
    flag("--no-record", "do not write PREFIX.ends.json"),
    json_flag(),
)
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


@command(
    "repair",
    "correct .idx files with uncounted EODs, a lost document index, or wrong pointers",
    LOCAL_SHARDS,
    one_of(
        number("--eod-id", "ID", "id of the token that ends documents"),
        path("--tokenizer", "PATH", "tokenizer whose EOS ends documents", type=data_path),
        required=True,
    ),
)
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
    say(f"{len(repaired):,} repaired, {num_good:,} without faults")
    check_repaired(shards)


@command(
    "merge",
    "join many shards into fewer",
    LOCAL_SHARDS,
    path("--output", "DIR", "folder of the new shards", required=True),
    number(
        "--target-tokens",
        "N",
        "largest number of tokens of a new shard, such as 2e9",
        required=True,
        type=float,
    ),
    flag("--overwrite", "replace different shards with the same names"),
)
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


@command(
    "index",
    "write .idx files for token files of other programs, which are used in place",
    path("inputs", "INPUT", "token file, or folder of token files", nargs="+"),
    path("--output", "DIR", "folder of the .idx files", required=True),
    one_of(
        number("--eod-id", "ID", "id of the token that ends documents"),
        number("--bos-id", "ID", "id of the token that begins documents, if none ends them"),
    ),
    argument(
        "--dtype",
        "token type of files that do not name it",
        choices=["uint8", "uint16", "int16", "uint32", "int32", "uint64", "int64"],
    ),
    number("--vocab-size", "N", "size of the vocabulary (default: the tokenizer's)"),
    path(
        "--tokenizer",
        "PATH",
        "tokenizer of the tokens: checked, recorded, and its EOS ends documents",
        type=data_path,
    ),
    number("--threads", "N", "files to read at the same time (default: two per core)"),
    flag("--overwrite", "replace existing .idx files"),
)
def _index(options: Namespace) -> None:
    from blendtitan.prepare.progress import shown_progress
    from blendtitan.shards.index import IndexedFile, check_indexed, index, index_table, plan_index
    from blendtitan.shards.index_documents import IndexSettings
    from blendtitan.tables import show
    from blendtitan.tokenizers import load_tokenizer

    settings = IndexSettings(
        eod_id=options.eod_id,
        bos_id=options.bos_id,
        dtype=options.dtype,
        vocab_size=options.vocab_size,
        tokenizer=None if options.tokenizer is None else load_tokenizer(options.tokenizer),
    )
    planned = plan_index(options.inputs, options.output, settings, overwrite=options.overwrite)
    files: list[IndexedFile] = []
    with shown_progress(
        sum(item.source.num_bytes for item in planned), say, verb="indexed"
    ) as update:
        for file in index(planned, settings, threads=options.threads):
            files.append(file)
            update(IndexedFile.totals(files))
    good = [file for file in files if file.error is None]
    show(index_table(good, options.output))
    kept = sum(file.was_there for file in good)
    say(f"{len(good) - kept:,} indexed, {kept:,} indexed before")
    for note in (note for file in good for note in file.notes):
        complain(note)
    check_indexed(files)


@command(
    "convert",
    "convert tokens of other formats to shards, without tokenising again",
    path("inputs", "INPUT", "folder or file of tokens; shard prefix or file list", nargs="+"),
    path("--output", "DIR", "folder of the new shards", required=True),
    argument(
        "--column", "column of the ids in rows (default: input_ids, or tokens)", metavar="NAME"
    ),
    number(
        "--eod-id",
        "ID",
        "id of the token that ends documents; appended to rows that do not end in it",
    ),
    flag("--packed", "rows hold documents end to end, cut anywhere: cut them after each --eod-id"),
    number("--vocab-size", "N", "size of the vocabulary (default: from the largest id)"),
    argument(
        "--dtype",
        "type of the ids in an MDS column of bytes",
        choices=["uint16", "uint32", "int32", "int64"],
    ),
    names(
        "--keep",
        "columns of Parquet and Arrow files to record in PREFIX.docs.parquet, as in url,id",
    ),
    number("--threads", "N", "files of rows to read at the same time (default: one per core)"),
    flag("--overwrite", "replace existing shards"),
)
def _convert(options: Namespace) -> None:
    from blendtitan.prepare.convert import convert
    from blendtitan.prepare.convert_rows import check_converted, conversion_notes, convert_rows
    from blendtitan.prepare.row_files import find_row_files
    from blendtitan.prepare.token_rows import RowSettings

    settings = RowSettings(
        column=options.column,
        eod_id=options.eod_id,
        is_packed=options.packed,
        vocab_size=options.vocab_size,
        dtype=options.dtype,
        keep=options.keep,
    )
    files, others, left_out = find_row_files(options.inputs, settings)
    if others and settings != RowSettings():
        raise ConfigError(
            f"{others[0]}: holds no Parquet or Arrow file, MDS or litdata, so --column, --eod-id, "
            f"--packed, --vocab-size, --dtype and --keep do not apply to it. Leave them out, or "
            f"name a folder or file of rows."
        )
    replaces, kept = options.overwrite, 0
    for shard in convert(others, options.output, overwrite=replaces) if others else ():
        say(_converted_line(shard))
    converted = []
    for file in convert_rows(
        files, options.output, settings, overwrite=replaces, threads=options.threads
    ):
        converted.append(file)
        kept += file.was_there
        if file.num_documents and not file.was_there:
            say(_converted_line(file))
    if kept:
        say(f"{kept:,} converted before")
    if left_out:
        some = some_of([*map(str, left_out)], 20)
        complain(f"{counted(len(left_out), 'file')} of another format left out: {some}")
    for note in conversion_notes(converted):
        complain(note)
    check_converted(converted)


def _converted_line(shard: "ConvertedShard | ConvertedFile") -> str:
    return (
        f"{shard.prefix}: {counted(shard.num_documents, 'document')}, "
        f"{counted(shard.num_tokens, 'token')}, from {shard.source} ({shard.description})"
    )
