"""Commands that look at a run: plan, explain, report and audit."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blendtitan.commands.arguments import Arguments, Command
from blendtitan.errors import ConfigError
from blendtitan.terminal import print_result, say

if TYPE_CHECKING:
    from blendtitan.runs.explain import Ranks
    from blendtitan.runs.open import OpenRun
    from blendtitan.tables import Table


def _plan_arguments(add: Arguments) -> None:
    add.run()
    add.ranks()
    add.json("tables")
    add.path("--picture", "FILE", "HTML file to write a picture of the blend to")
    add.flag("--overwrite", "replace a FILE that is not an earlier picture")


def _plan(options: Namespace) -> None:
    from blendtitan.runs.open import read_run, unchanged_run
    from blendtitan.runs.plan import plan_run

    if options.picture is not None:
        from blendtitan.runs.report.page import check_page

        if not options.overwrite:
            check_page(options.picture)
    plan = plan_run(read_run(options.config, ranks=options.ranks))
    if options.picture is not None:
        from blendtitan.runs.report.facts import blend_curve
        from blendtitan.runs.report.page import write_page
        from blendtitan.runs.report.sections import blend_page

        curve = blend_curve(unchanged_run(plan.run).slots, max(1, plan.run.num_samples))
        page = blend_page(str(plan.run.path), plan.headline(), curve)
        write_page(page, options.picture, overwrite=options.overwrite)
    print_result(options.json, plan.json, plan.lines)


PLAN = Command(
    summary="what a run will read: shares, epochs, splits, warnings",
    manual="""\
Show what a run will read, from its configuration and the .idx files: for each corpus its shards,
documents, tokens and share, and at the end of the run the tokens read, the epochs, the tokens left
unused and the bytes to read; the shares and epochs of every segment; the sizes of the splits.

Warns about what is likely to be a mistake: corpora that repeat more often than
blendcorpus.max_epochs, a valid split of less than a global batch or 100 samples, documents that do
not end in EOD, a vocabulary larger than a shard's token type holds, rows shorter than a window,
corpora without documents for validation, tokens that the run does not reach. The exit status is 0
all the same.

CONFIG is the TOML file of a run, or a run's job.dump_folder. Nothing is trained; the run is taken
to go from its first step to its last without being changed.

--picture FILE.html also writes a picture of the blend over the steps of the run, in one file that
needs no network. It needs plotly: pip install 'blendtitan[report]'. An earlier picture or report
of the same name is replaced; any other file is an error, unless --overwrite is given.
""",
    example="""\
example:
  blendtitan plan configs/debug.toml
  blendtitan plan outputs/debug --json
  blendtitan plan configs/debug.toml --picture blend.html
""",
    add_arguments=_plan_arguments,
    run=_plan,
)


def _explain_arguments(add: Arguments) -> None:
    add.run(nargs="?")
    add.path("--state", "FOLDER", "checkpoint, or run, that has its history")
    choose = add.one_of()
    choose.number("--step", "N", "a step, from 1")
    choose.number("--steps", "A-B", "a range of steps", type=_span)
    choose.number("--slot", "N", "a sample of the run, from 0")
    choose.number("--tokens", "N", "the sample after so many tokens")
    choose.number("--document", "SHARD:ID", "when a document is read", type=_document)
    choose.number("--around", "STEP", "a step against those before it")
    add.number("--window", "K", "with --around: how many steps before (8)")
    add.number("--until", "STEP", "with --document: up to this step")
    add.number("--ranks", "N", "data-parallel ranks of the run")
    add.number("--rank", "R", "with --step: what this rank reads")
    add.number("--sample", "I", "with --step: one of its samples, from 0")
    add.flag("--full", "show every document, with all of its text")
    add.json("text")


def _span(text: str) -> range:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise ArgumentTypeError(f"found {text!r}, expected two steps such as 10-20")
    return range(int(first), int(last) + 1)


def _document(text: str) -> tuple[str, int]:
    shard, colon, number = text.rpartition(":")
    if not (colon and shard and number.isdecimal()):
        raise ArgumentTypeError(f"found {text!r}, expected a shard and a number: web/0:17")
    return shard, int(number)


def _explain(options: Namespace) -> None:
    from blendtitan.runs.explain import history_json, history_table, ranks_of
    from blendtitan.runs.open import open_run

    if options.step is None and (options.rank is not None or options.sample is not None):
        raise ConfigError("--rank and --sample choose within a step: expected --step with them")
    if options.until is not None and options.document is None:
        raise ConfigError("--until limits --document: expected --document with it")
    if options.window is not None and options.around is None:
        raise ConfigError("--window belongs to --around: expected --around with it")
    run = open_run(options.config, options.state, ranks=options.ranks)
    about, head = {"about": run.about}, (f"{run.about}:", "")
    if options.document is not None:
        from blendtitan.runs.find_document import find_document
        from blendtitan.runs.slots import step_slots

        stop = None if options.until is None else step_slots(run.slots.paces, options.until).stop
        ranks = ranks_of(run, options.ranks)
        document = find_document(run, *options.document, stop_slot=stop, ranks=ranks)
        print_result(
            options.json, lambda: about | document.json(), lambda: [*head, *document.lines()]
        )
    elif options.around is not None:
        from blendtitan.runs.compare_step import compare_step

        window = 8 if options.window is None else options.window
        found = compare_step(run, options.around, window=window)
        print_result(options.json, lambda: about | found.json(), lambda: [*head, *found.lines()])
    elif (options.step, options.steps, options.slot, options.tokens) == (None,) * 4:
        print_result(
            options.json,
            lambda: about | {"segments": history_json(run)},
            lambda: [*head, history_table(run)],
        )
    else:
        _explain_samples(options, run, ranks_of(run, options.ranks))


def _explain_samples(options: Namespace, run: "OpenRun", ranks: "Ranks | None") -> None:
    from blendtitan.runs import explain

    slots = _slots(options, run, ranks)
    is_detailed = options.full or len(slots) <= explain.DETAILED
    if options.steps is not None and not is_detailed and not options.json:
        run = replace(run, contents=None)  # only counts are shown
    samples = explain.explain_slots(run, slots, ranks=ranks, with_texts=is_detailed or options.json)

    def lines() -> "Iterator[str | Table]":
        yield from (f"{run.about}:", "", explain.samples_by_step(samples))
        if options.steps is None and not is_detailed:
            yield from ("", explain.sample_table(samples))
        for sample in samples if is_detailed else []:
            yield from ("", *explain.sample_lines(sample, full=options.full))

    print_result(
        options.json,
        lambda: {
            "about": run.about,
            "samples": [explain.sample_json(sample, full=options.full) for sample in samples],
        },
        lines,
    )


def _slots(options: Namespace, run: "OpenRun", ranks: "Ranks | None") -> list[int]:
    from blendtitan.runs.explain import select_step, select_tokens

    if options.step is not None:
        chosen = {"rank": options.rank, "sample": options.sample}
        return select_step(run, options.step, ranks=ranks, **chosen)
    if options.steps is not None:
        return [slot for step in options.steps for slot in select_step(run, step)]
    return [options.slot] if options.slot is not None else select_tokens(run, options.tokens)


EXPLAIN = Command(
    summary="which documents make up a step, a slot or a token of a run",
    manual="""\
Show what any step of a run reads, past or to come: for each sample its corpus, shard, epoch and
window, the bytes it takes from the shard's .bin, its documents and their text, decoded with the
run's tokenizer. It is computed from the order itself; nothing is trained, and any step takes as
long as the first.

CONFIG is the TOML file of a run, which is then taken as never changed, or a run's job.dump_folder,
whose latest checkpoint with a state has the phases, segments and global batch sizes that the run
really had. --state names another checkpoint, or adds one to a TOML file. With --state alone,
without CONFIG, no data is read: shards are named, and tokens are counted from the first one that
the shard has in the split.

Choose one of
  --step N      a step; the first is 1. --ranks N shows which rank reads which sample; --rank R and
                --sample I choose some of them
  --steps A-B   steps A to B, both included
  --slot N      one sample: the N-th of the run, from 0
  --tokens N    the sample of the token that comes after N tokens of the run
  --document SHARD:ID
                when document ID of a shard is read, up to the end of the run or --until STEP. SHARD
                is its path without .bin, or the end of it
  --around N    step N against the 8 steps before it, or the --window K: after a loss spike, whether
                its corpora, its document lengths or its tokens are unusual
Without any of them the segments of the run are shown.

Up to 8 samples are shown document by document, more of them in one line each; --full shows
every document, and all of each text.
""",
    example="""\
example:
  blendtitan explain outputs/debug --step 12
  blendtitan explain configs/debug.toml --step 12 --ranks 2 --rank 1 --sample 0 --full
  blendtitan explain outputs/debug --around 30 --window 20
  blendtitan explain outputs/debug --document web/part_00:17 --until 5000
  blendtitan explain --state outputs/debug/checkpoint/step-40 --steps 38-40 --json
""",
    add_arguments=_explain_arguments,
    run=_explain,
)


def _report_arguments(add: Arguments) -> None:
    add.path("run_path", "RUN", "folder of a run, or its TOML file")
    add.path("--compare", "RUN", "runs to put beside it", nargs="+", default=[])
    add.path("--output", "FILE", "file to write (report.html)", default=Path("report.html"))
    add.flag("--overwrite", "replace a FILE that is not an earlier report")
    add.number("--step", "N", "sample texts from this step on (1)", default=1)
    add.ranks()


def _report(options: Namespace) -> None:
    from blendtitan.runs.report.facts import gather_runs
    from blendtitan.runs.report.page import check_page, write_page
    from blendtitan.runs.report.sections import report_page

    if not options.overwrite:
        check_page(options.output)
    paths = [options.run_path, *options.compare]
    runs = gather_runs(paths, step=options.step, ranks=options.ranks)
    size = write_page(report_page(runs), options.output, overwrite=options.overwrite)
    say(f"{options.output}: {size:,} bytes, {len(runs)} run{'s' if len(runs) > 1 else ''}")


REPORT = Command(
    summary="a run as one HTML file: blend, epochs, losses, texts",
    manual="""\
Write one HTML file about a run, which needs no network: the blend over training, achieved against
configured, with its segments; epochs of each corpus; loss and validation loss of each corpus, and
the time spent waiting for data, from the run's TensorBoard files; document lengths of each corpus;
sample texts; the configuration. It is legible in light and dark, on a phone and printed; tables
can be sorted.

RUN is a run's job.dump_folder, whose latest checkpoint with a state says how far it came and what
was changed, or a TOML file: a run that has not begun. --compare puts other runs beside it.

An earlier report or picture of the same name is replaced; any other file is an error, unless
--overwrite is given.

The figures need plotly: pip install 'blendtitan[report]'
""",
    example="""\
example:
  blendtitan report outputs/debug
  blendtitan report configs/debug.toml --output plan.html
  blendtitan report outputs/a --compare outputs/b outputs/c --output compared.html
""",
    add_arguments=_report_arguments,
    run=_report,
)


def _audit_arguments(add: Arguments) -> None:
    add.path("run_folder", "RUN_FOLDER", "folder of a run, or its checkpoints")
    add.path("--against", "FOLDER", "another run to compare it with")
    add.json()


def _audit(options: Namespace) -> None:
    from blendtitan.runs.audit import (
        audit_json,
        audit_run,
        audit_table,
        check_proved,
        compare_runs,
    )

    audited = audit_run(options.run_folder)
    parting = None
    if options.against is not None:
        parting = compare_runs(audited, audit_run(options.against))
    print_result(
        options.json,
        lambda: audit_json(audited, parting),
        lambda: [audit_table(audited), *(parting.lines() if parting else ())],
    )
    check_proved(audited)


AUDIT = Command(
    summary="prove that each checkpoint of a run continues the one before",
    manual="""\
Prove from the states in a run's checkpoints that each continues where the one before stopped: the
same seed, split and flags; the same history of phases, segments and global batch sizes; the same
samples before it, by their digest; phases that begin where every row of documents stood; as many
samples consumed as its step says.

Only the states are read, neither data nor weights, and nothing in a checkpoint is executed. So it
takes seconds for any run, of any number of ranks, on any machine.

With --against, two runs are compared: up to which slot they read the same samples, and what
differs from there on.

RUN_FOLDER is a run's job.dump_folder, or its checkpoint folder. Incomplete checkpoints and those
without a state (the last one, with checkpoint.last_save_model_only) are listed and skipped. If a
checkpoint is not proved, the exit status is 1.
""",
    example="""\
example:
  blendtitan audit outputs
  blendtitan audit outputs/checkpoint --against ../other/outputs/checkpoint --json
""",
    add_arguments=_audit_arguments,
    run=_audit,
)
