"""The command line: arguments only, every command is one call.

Commands import what they need when they run, so that ``--help`` answers at once.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from blendtitan.errors import BlendTitanError

_TOKENIZE = """\
Turn files of JSON lines into shards.

Inputs are .jsonl, .json (read as JSON lines), .gz and .zst files, or folders that are searched
for them. A file below a folder keeps its path relative to it; a file named by itself goes
directly to DIR:

  text/code/a.jsonl in the folder text  ->  DIR/code/a.bin, DIR/code/a.idx    corpus code
  web.jsonl.zst named by itself         ->  DIR/web.bin, DIR/web.idx
  the same with --corpus web            ->  DIR/web/web.bin, DIR/web/web.idx  corpus web

Each text becomes a document: its tokens, then the tokenizer's EOS, which counts as a token of
the document. The result is the same for any number of workers. A shard appears when it is
complete, so an interrupted command can be run again; it then writes every shard anew.

A line that is no JSON object in UTF-8 with a non-empty string under the key is reported with
its file and line number. --max-rejects says how many such lines may be left out, in all files
together. If there are more, the command fails; a file with more than that of its own, or that
cannot be read to its end, leaves no new shard, and the shards of the other files are kept.
"""

_TOKENIZE_EXAMPLE = """\
example:
  blendtitan tokenize data/text --output data/tokens --tokenizer tokenizer.model --workers 8
"""

_MIX = """\
Write a file list in which each corpus is read a given number of times.

Inputs are folders of shards (first-level subfolders are corpora), prefixes of shards (the path
without .bin or .idx; the file name is the corpus), and file lists, whose corpora are kept and
whose weights are not. A shard weighs its tokens times the epochs of its corpus, so one pass over
the whole blend reads each corpus that often. A corpus that is not named gets 1 epoch. Epochs may
be fractions.
"""

_MIX_EXAMPLE = """\
example:
  blendtitan mix data/tokens --output data/file_list.txt --epochs code=2 reference=0.5
"""

_DEMO = """\
Make three corpora of real text without any download, ready to train on: code (the standard
library's sources), reference (the language reference and docstrings) and readmes (descriptions of
installed distributions); a SentencePiece tokenizer trained on them; shards; and a file list.

A complete demo is left as it is, an interrupted one is made anew.
"""

_DEMO_EXAMPLE = """\
example:
  blendtitan demo --output data/demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 after an error, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options.run(options)
    except (BlendTitanError, OSError) as error:
        print(f"blendtitan {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"blendtitan {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blendtitan",
        description="Prepare data for training on a blend of corpora.",
        epilog="Each command has a manual of its own: blendtitan COMMAND --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str,
        summary: str,
        manual: str,
        example: str,
        run: Callable[[argparse.Namespace], None],
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=manual,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    _add_tokenize_arguments(
        command("tokenize", "text files to shards", _TOKENIZE, _TOKENIZE_EXAMPLE, _tokenize)
    )
    _add_mix_arguments(
        command("mix", "a file list from epochs per corpus", _MIX, _MIX_EXAMPLE, _mix)
    )
    _add_demo_arguments(
        command("demo", "small real corpora, ready to train on", _DEMO, _DEMO_EXAMPLE, _demo)
    )
    return parser


def _add_tokenize_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", type=Path, help="file or folder of JSON lines")
    add("--output", metavar="DIR", required=True, type=Path, help="folder of the shards")
    add(
        "--tokenizer",
        metavar="PATH",
        required=True,
        type=Path,
        help="SentencePiece .model, Hugging Face tokenizer.json, or a folder with one; "
        "where a folder has both, tokenizer.json is read",
    )
    add("--workers", metavar="N", type=int, help="processes (default: one per core)")
    add("--key", default="text", help="field that holds the text (default: %(default)s)")
    add(
        "--max-rejects",
        metavar="N",
        type=int,
        default=0,
        help="bad lines that may be left out (default: %(default)s)",
    )
    add("--corpus", metavar="NAME", help="subfolder of DIR to put the shards in")


def _add_mix_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", type=Path, help="folder, shard prefix or file list")
    add("--output", metavar="FILE", required=True, type=Path, help="file list to write")
    add(
        "--epochs",
        metavar="CORPUS=NUMBER",
        nargs="+",
        action="extend",
        default=[],
        help="how often one pass over the blend reads a corpus",
    )


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output", metavar="DIR", required=True, type=Path, help="folder of the demo")
    add(
        "--vocab-size",
        metavar="N",
        type=int,
        default=4096,
        help="ids of the tokenizer (default: %(default)s)",
    )


def _tokenize(options: argparse.Namespace) -> None:
    from blendtitan.prepare.report import show, tokenize_table
    from blendtitan.prepare.tokenize import tokenize
    from blendtitan.prepare.workers import TokenizeConfig

    config = TokenizeConfig(
        tokenizer=options.tokenizer,
        key=options.key,
        max_rejects=options.max_rejects,
        workers=options.workers,
    )
    files = tokenize(options.inputs, options.output, config, corpus=options.corpus)
    show(tokenize_table(files, options.output))


def _mix(options: argparse.Namespace) -> None:
    from blendtitan.prepare.mix import mix, parse_epochs
    from blendtitan.prepare.report import mix_table, show

    show(mix_table(mix(options.inputs, options.output, parse_epochs(options.epochs))))


def _demo(options: argparse.Namespace) -> None:
    from blendtitan.prepare.demo import prepare_demo
    from blendtitan.prepare.report import mix_table, show

    corpora = prepare_demo(options.output, vocab_size=options.vocab_size)
    if corpora is None:
        print(f"{options.output}: the demo is complete, nothing to do")
    else:
        show(mix_table(corpora))


if __name__ == "__main__":
    sys.exit(main())
