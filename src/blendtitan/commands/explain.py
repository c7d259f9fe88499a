"""``blendtitan explain``."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say, say_json

if TYPE_CHECKING:
    from blendtitan.runs.explain import Ranks
    from blendtitan.runs.source import Source

SUMMARY = "which documents made a step, a slot or a token of a run"

MANUAL = """\
Show what any step of a run reads, past or to come: for each sample its corpus, shard, epoch and
window, the bytes it takes from the shard's .bin, its documents and their text, decoded with the
run's tokenizer. It is computed from the order itself; nothing is trained, and any step takes as
long as the first.

CONFIG is the TOML file of a run, which is then taken never to be changed, or a run's
job.dump_folder, of which the latest checkpoint with a state tells the chapters, segments and
global batch sizes that the run really had. --state names another checkpoint, or does so for a
TOML file. With --state alone, without CONFIG, no data is read: shards are named, and tokens are
counted from the first one that the shard has in the split.

Choose one of
  --step N      a step; the first is 1. --ranks N tells which rank reads which sample; --rank R and
                --sample I choose some of them
  --steps A-B   steps A to B, both included
  --slot N      one sample: the N-th of the run, from 0
  --tokens N    the sample of the token that N tokens of the run come before
  --document SHARD:ID
                when document ID of a shard is read, up to the end of the run or --until STEP. SHARD
                is its path without .bin, or the end of it
  --around N    step N against the 8 steps before it, or the --window K: after a loss spike, whether
                its corpora, its document lengths or its tokens are unusual
Without any of them the segments of the run are shown.

Up to 8 samples are shown document by document, more of them in one line each; --full shows
every document, and all of each text.
"""

EXAMPLE = """\
example:
  blendtitan explain outputs/debug --step 12
  blendtitan explain configs/debug.toml --step 12 --ranks 2 --rank 1 --sample 0 --full
  blendtitan explain outputs/debug --around 30 --window 20
  blendtitan explain outputs/debug --document web/part_00:17 --until 5000
  blendtitan explain --state outputs/debug/checkpoint/step-40 --steps 38-40 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add(
        "config",
        metavar="CONFIG",
        nargs="?",
        type=local_path,
        help="TOML file of a run, or its folder",
    )
    add(
        "--state",
        metavar="FOLDER",
        type=local_path,
        help="checkpoint, or run, that tells its history",
    )
    choose = parser.add_mutually_exclusive_group().add_argument
    choose("--step", metavar="N", type=int, help="a step, from 1")
    choose("--steps", metavar="A-B", type=_span, help="a range of steps")
    choose("--slot", metavar="N", type=int, help="a sample of the run, from 0")
    choose("--tokens", metavar="N", type=int, help="the sample after so many tokens")
    choose("--document", metavar="SHARD:ID", type=_document, help="when a document is read")
    choose("--around", metavar="STEP", type=int, help="a step against those before it")
    add("--window", metavar="K", type=int, help="with --around: how many steps before (8)")
    add("--until", metavar="STEP", type=int, help="with --document: up to this step")
    add("--ranks", metavar="N", type=int, help="data-parallel ranks of the run")
    add("--rank", metavar="R", type=int, help="with --step: what this rank reads")
    add("--sample", metavar="I", type=int, help="with --step: one of its samples, from 0")
    add("--full", action="store_true", help="show every document, with all of its text")
    add("--json", action="store_true", help="print JSON in place of text")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.errors import ConfigError
    from blendtitan.runs.source import open_source

    if options.step is None and (options.rank is not None or options.sample is not None):
        raise ConfigError("--rank and --sample choose within a step: expected --step with them")
    if options.until is not None and options.document is None:
        raise ConfigError("--until ends the readings of a document: expected --document with it")
    if options.window is not None and options.around is None:
        raise ConfigError("--window is of --around: expected --around with it")
    source = open_source(options.config, options.state, ranks=options.ranks)
    if options.document is not None:
        _show_document(options, source)
        return
    if options.around is not None:
        _show_around(options, source)
        return
    chosen = (options.step, options.steps, options.slot, options.tokens)
    if all(choice is None for choice in chosen):
        _show_history(options, source)
    else:
        _show_samples(options, source)


def _span(text: str) -> range:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected two steps such as 10-20")
    return range(int(first), int(last) + 1)


def _document(text: str) -> tuple[str, int]:
    shard, colon, number = text.rpartition(":")
    if not (colon and shard and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a shard and a number: web/0:17")
    return shard, int(number)


def _show_history(options: argparse.Namespace, source: "Source") -> None:
    from blendtitan.runs.explain_report import history_json, history_table
    from blendtitan.tables import show

    if options.json:
        say_json({"about": source.about, "segments": history_json(source)})
        return
    say(f"{source.about}:", "")
    show(history_table(source))


def _show_document(options: argparse.Namespace, source: "Source") -> None:
    from blendtitan.runs.explain import ranks_of
    from blendtitan.runs.find_document import when_read
    from blendtitan.runs.find_document_report import document_json, document_table, headline
    from blendtitan.runs.slots import step_slots
    from blendtitan.tables import show

    stop = None if options.until is None else step_slots(source.slots.paces, options.until).stop
    ranks = ranks_of(source, options.ranks)
    document = when_read(source, *options.document, stop_slot=stop, ranks=ranks)
    if options.json:
        say_json({"about": source.about} | document_json(document))
        return
    say(f"{source.about}:", "", headline(document))
    if document.readings:
        say()
        show(document_table(document))


def _show_around(options: argparse.Namespace, source: "Source") -> None:
    from blendtitan.runs.compare_step import compare_step
    from blendtitan.runs.compare_step_report import comparison_json, comparison_lines

    window = {} if options.window is None else {"window": options.window}
    found = compare_step(source, options.around, **window)
    if options.json:
        say_json({"about": source.about} | comparison_json(found))
        return
    say(
        f"{source.about}:", *(line for section in comparison_lines(found) for line in ("", section))
    )


def _show_samples(options: argparse.Namespace, source: "Source") -> None:
    from blendtitan.runs import explain_report as report
    from blendtitan.runs.explain import explain_slots, ranks_of
    from blendtitan.tables import show

    ranks = ranks_of(source, options.ranks)
    slots = _slots(options, source, ranks)
    is_detailed = options.full or len(slots) <= report.DETAILED
    if options.steps is not None and not is_detailed and not options.json:
        source = replace(source, contents=None)  # counts alone are shown
    samples = explain_slots(source, slots, ranks=ranks, with_texts=is_detailed or options.json)
    if options.json:
        found = [report.sample_json(sample, full=options.full) for sample in samples]
        say_json({"about": source.about, "samples": found})
        return
    say(f"{source.about}:", "")
    show(report.samples_by_step(samples))
    if options.steps is None and not is_detailed:
        say()
        show(report.sample_table(samples))
    for sample in samples if is_detailed else []:
        say()
        say(*report.sample_lines(sample, full=options.full))


def _slots(options: argparse.Namespace, source: "Source", ranks: "Ranks | None") -> list[int]:
    from blendtitan.runs.explain import select_step, select_tokens

    if options.step is not None:
        return select_step(
            source, options.step, ranks=ranks, rank=options.rank, sample=options.sample
        )
    if options.steps is not None:
        return [slot for step in options.steps for slot in select_step(source, step)]
    return [options.slot] if options.slot is not None else select_tokens(source, options.tokens)
