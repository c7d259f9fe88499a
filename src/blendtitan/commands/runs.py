"""Commands that inspect runs: plan, explain, report, audit and sweep."""

from argparse import ArgumentTypeError, Namespace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from blendtitan.commands.arguments import (
    RANKS,
    argument,
    command,
    flag,
    json_flag,
    number,
    one_of,
    path,
    run_config,
    run_path,
    shards,
)
from blendtitan.errors import ConfigError
from blendtitan.terminal import complain, print_result, say
from blendtitan.visible import some_of

if TYPE_CHECKING:
    from blendtitan.runs.compare_step import Comparison
    from blendtitan.runs.explain import SampleReport
    from blendtitan.runs.explain_segments import SegmentReport
    from blendtitan.runs.find_document import Document
    from blendtitan.runs.open import OpenRun
    from blendtitan.runs.places import Ranks


@command(
    "plan",
    "show what a run will read: shares, epochs, splits, warnings",
    run_config(),
    RANKS,
    flag(
        "--balance", "predict how long ranks wait, with balanced steps and without; needs --ranks"
    ),
    number("--nodes", "M", "predict what each of M nodes fetches when staging; needs --ranks"),
    json_flag("tables"),
    path("--picture", "FILE", "HTML file for a figure of the blend"),
    flag("--overwrite", "replace a FILE that is not an earlier picture"),
)
def _plan(options: Namespace) -> None:
    from blendtitan.runs.open import read_run, unchanged_run
    from blendtitan.runs.plan import plan_run
    from blendtitan.runs.predictions import Asked
    from blendtitan.runs.resumed import state_to_resume
    from blendtitan.runs.run_folder import run_file
    from blendtitan.settings.overrides import naming_command_line, read_run_keys

    if options.ranks is None and (options.balance or options.nodes is not None):
        name = "--balance" if options.balance else "--nodes"
        raise ConfigError(f"{name} predicts something about ranks: expected --ranks with it")
    if options.picture is not None:
        from blendtitan.runs.report.page import check_page

        if not options.overwrite:
            check_page(options.picture)
    config = run_file(options.config)
    with naming_command_line(config, options.overrides):
        values = read_run_keys(config, options.overrides)
        run = read_run(config, ranks=options.ranks, values=values)
        asked = Asked(ranks=options.ranks or 1, waiting=options.balance, nodes=options.nodes)
        stored = state_to_resume(values, config.parent)
        plan = plan_run(run, asked=asked, stored=stored)
    if options.picture is not None:
        from blendtitan.runs.report.facts import blend_curve
        from blendtitan.runs.report.page import Page, write_page

        slots = unchanged_run(plan.run, train=plan.train).slots
        curve = blend_curve(slots, max(1, plan.run.stop_slot))
        page = Page(title=str(plan.run.path), lead=" ".join(plan.headline()), curve=curve)
        size = write_page(page, options.picture, overwrite=options.overwrite)
        complain(f"{options.picture}: {size:,} bytes")
    print_result(options.json, plan.json, plan.lines)


def _span(text: str) -> range:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise ArgumentTypeError(f"found {text!r}, expected two steps such as 10-20")
    return range(int(first), int(last) + 1)


def _whole(text: str) -> int:
    """A whole number, also as ``5e9``."""
    try:
        number = Decimal(text)
        if number == int(number):
            return int(number)
    except (InvalidOperation, OverflowError, ValueError):
        pass
    raise ArgumentTypeError(f"found {text!r}, expected a whole number such as 5000 or 5e9")


def _document(text: str) -> tuple[str, int]:
    shard, colon, number = text.rpartition(":")
    if not (colon and shard and number.isdecimal()):
        raise ArgumentTypeError(f"found {text!r}, expected a shard and a number: web/0:17")
    return shard, int(number)


@command(
    "explain",
    "show which documents make up a step, a sample or a token of a run",
    run_config(nargs="?", type=run_path),
    path(
        "--state",
        "FOLDER",
        "checkpoint, or folder of a run, with the run's history",
        type=run_path,
    ),
    one_of(
        number("--step", "N", "show a step; the first is 1"),
        number("--steps", "A-B", "show a range of steps", type=_span),
        number("--slot", "N", "show one sample; the first is 0"),
        number("--tokens", "N", "show the sample that follows the first N tokens", type=_whole),
        number("--document", "SHARD:ID", "show all reads of a document", type=_document),
        number("--around", "STEP", "compare a step with those before it"),
    ),
    number("--window", "K", "with --around: number of earlier steps (default: 8)"),
    number("--until", "STEP", "with --document: last step to show"),
    number("--ranks", "N", "data-parallel ranks of the run"),
    number("--rank", "R", "with --step: show only this rank"),
    number("--sample", "I", "with --step: show only this sample, of the step or of --rank, from 0"),
    flag("--full", "show every document with its whole text"),
    json_flag("text"),
)
def _explain(options: Namespace) -> None:
    from blendtitan.runs.kept_shards import with_kept_shards
    from blendtitan.runs.open import open_run

    if options.step is None and (options.rank is not None or options.sample is not None):
        raise ConfigError("--rank and --sample choose within a step: expected --step with them")
    if options.until is not None and options.document is None:
        raise ConfigError("--until limits --document: expected --document with it")
    if options.window is not None and options.around is None:
        raise ConfigError("--window belongs to --around: expected --around with it")
    run = with_kept_shards(open_run(options.config, options.state, ranks=options.ranks))
    answer = _answer(options, run)
    print_result(
        options.json,
        lambda: {"about": run.about} | answer.json(),
        lambda: [f"{run.about}:", "", *answer.lines()],
    )


def _answer(
    options: Namespace, run: "OpenRun"
) -> "SampleReport | SegmentReport | Comparison | Document":
    from blendtitan.runs.explain import ranks_of, sample_report
    from blendtitan.runs.explain_segments import SegmentReport
    from blendtitan.runs.slots import step_slots

    if options.around is not None:
        from blendtitan.runs.compare_step import compare_step

        window = 8 if options.window is None else options.window
        return compare_step(run, options.around, window=window)
    chosen = (options.document, options.step, options.steps, options.slot, options.tokens)
    if all(each is None for each in chosen):
        return SegmentReport.of_run(run)
    ranks = ranks_of(run, options.ranks)
    if options.document is not None:
        from blendtitan.runs.find_document import find_document

        stop = None if options.until is None else step_slots(run.slots, options.until)[-1] + 1
        return find_document(run, *options.document, stop_slot=stop, ranks=ranks)
    return sample_report(
        run,
        _slots(options, run, ranks),
        ranks,
        is_range=options.steps is not None,
        is_full=options.full,
        as_json=options.json,
    )


def _slots(options: Namespace, run: "OpenRun", ranks: "Ranks | None") -> list[int]:
    from blendtitan.runs.explain import select_step, select_tokens

    if options.step is not None:
        chosen = {"rank": options.rank, "sample": options.sample}
        return select_step(run, options.step, ranks=ranks, **chosen)
    if options.steps is not None:
        return [slot for step in options.steps for slot in select_step(run, step)]
    return [options.slot] if options.slot is not None else select_tokens(run, options.tokens)


@command(
    "find",
    "list documents by their source, and when a run reads them",
    shards("*"),
    one_of(
        argument("--where", "SQL condition, such as \"url LIKE '%%example.org%%'\"", metavar="SQL"),
        path("--values", "FILE", "values of --key, one on a line, such as a list of URLs"),
        required=True,
    ),
    argument("--key", "column that --values are in, such as url (default: id)", metavar="NAME"),
    path("--run", "RUN", "run that reads the documents: its folder or TOML file", type=run_path),
    RANKS,
    path("--output", "FILE", "list of all documents found, for removed_documents"),
    flag("--overwrite", "replace a FILE that find did not write"),
    number("--limit", "N", "documents to show (default: %(default)s)", default=100),
    json_flag(),
)
def _find(options: Namespace) -> None:
    from blendtitan.files import path_of
    from blendtitan.runs.find import Wanted, check_run, find, find_report, listed
    from blendtitan.runs.open import open_run
    from blendtitan.storage.list_forms import named_shards

    if not options.inputs and options.run is None:
        raise ConfigError("nothing to search: name folders, shards or file lists, or --run")
    run = None if options.run is None else open_run(options.run, ranks=options.ranks)
    prefixes = [shard.prefix for shard in named_shards(options.inputs)]
    if run is not None:
        check_run(run)
        if not prefixes and run.contents is not None:
            prefixes = [path_of(prefix) for prefix in run.contents.catalog.prefixes]
    if options.key is not None and options.values is None:
        raise ConfigError("--key names the column of --values: give both, or a condition --where")
    wanted = (
        Wanted.of_condition(options.where)
        if options.values is None
        else Wanted.of_values(options.values, options.key or "id")
    )
    num_values = len(wanted.missing)
    found = find(prefixes, wanted)
    if options.output is not None:
        found = listed(found, options.output, wanted, overwrite=options.overwrite)
    report = find_report(found, run, limit=options.limit)
    print_result(options.json, report.json, report.lines)
    if wanted.missing:
        complain(
            f"not found in any document ({len(wanted.missing):,} of {num_values:,}): "
            f"{some_of(list(wanted.missing), 5)}"
        )
    if options.output is not None and not options.json:
        say(f"{options.output}: written, for blendcorpus.removed_documents")


@command(
    "report",
    "write a run as one HTML file: blend, epochs, losses, texts",
    path("run_path", "RUN", "folder of a run, or its TOML file", type=run_path),
    path(
        "--compare",
        "RUN",
        "other runs to compare it with",
        nargs="+",
        action="extend",
        default=[],
        type=run_path,
    ),
    path("--output", "FILE", "file to write (default: report.html)", default=Path("report.html")),
    flag("--overwrite", "replace a FILE that is not an earlier report"),
    number("--step", "N", "step from which sample texts are taken (default: 1)", default=1),
    RANKS,
)
def _report(options: Namespace) -> None:
    from blendtitan.runs.report.facts import gather_runs
    from blendtitan.runs.report.page import check_page, report_page, write_page

    if not options.overwrite:
        check_page(options.output)
    paths = [options.run_path, *options.compare]
    runs = gather_runs(paths, step=options.step, ranks=options.ranks)
    size = write_page(report_page(runs), options.output, overwrite=options.overwrite)
    say(f"{options.output}: {size:,} bytes, {len(runs)} run{'s' if len(runs) > 1 else ''}")


@command(
    "removed",
    "list where removed documents were read, and prove that they are no longer",
    run_config(type=run_path),
    path("--list", "FILE", "list of removed documents (default: the run's removed_documents)"),
    RANKS,
    json_flag(),
)
def _removed(options: Namespace) -> None:
    from blendtitan.runs.kept_shards import with_kept_shards
    from blendtitan.runs.open import open_run
    from blendtitan.runs.removed import removed_report

    run = open_run(options.config, ranks=options.ranks, removed=options.list)
    report = removed_report(with_kept_shards(run))
    report.check()
    print_result(options.json, report.json, report.lines)


@command(
    "audit",
    "prove that each checkpoint of a run continues the previous one",
    path("run_folder", "RUN_FOLDER", "folder of a run, or of its checkpoints", type=run_path),
    path("--against", "FOLDER", "another run to compare it with", type=run_path),
    json_flag(),
)
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


@command(
    "sweep",
    "configure runs with many blends of the same corpora, and collect their losses",
    path("folder", "FOLDER", "folder of the sweep and of its runs"),
    one_of(
        path("--config", "CONFIG", "TOML file of a run, or its folder"),
        flag("--collect", "collect the losses of the runs"),
        required=True,
    ),
    argument(
        "--method",
        "grid, dirichlet or one-at-a-time (default: %(default)s)",
        default="dirichlet",
    ),
    number("--runs", "N", "number of blends"),
    number("--seed", "N", "seed of random blends (default: %(default)s)", default=0),
    number("--concentration", "X", "dirichlet: closeness of the blends to the base", type=float),
    number("--levels", "N", "grid: number of steps from a share of 0 to 1"),
    number(
        "--factors",
        "X",
        "one-at-a-time: factors for the shares",
        nargs="+",
        action="extend",
        type=float,
    ),
    argument(
        "--corpora",
        "corpora whose shares change",
        metavar="CORPUS",
        nargs="+",
        action="extend",
        default=[],
    ),
    number("--min-share", "X", "smallest share of a corpus (default: 0)", type=float),
    RANKS,
    number(
        "--last",
        "N",
        "number of logged steps to average training losses over (default: %(default)s)",
        default=10,
    ),
    flag("--overwrite", "with --collect: replace tables that it did not write"),
)
def _sweep(options: Namespace) -> None:
    from blendtitan.mixture import sweep
    from blendtitan.mixture.blends import SweepConfig
    from blendtitan.tables import show

    if options.collect:
        runs = sweep.read_losses(options.folder, last=options.last)
        sweep.write_losses(options.folder, runs, overwrite=options.overwrite)
        show(sweep.losses_table(runs))
        missing = [*sweep.missing_columns(runs)]
        if missing:
            say("", *missing)
        finished = sum(run.finished for run in runs)
        say("", f"{finished} of {len(runs)} runs are finished.")
        say(f"Their losses were written to {options.folder / sweep.LOSSES}.")
        return
    config = SweepConfig(
        method=options.method,
        corpora=tuple(options.corpora),
        runs=options.runs,
        seed=options.seed,
        levels=options.levels,
        concentration=options.concentration,
        factors=None if options.factors is None else tuple(options.factors),
        min_share=options.min_share,
    )
    planned = sweep.plan_sweep(options.config, config, ranks=options.ranks)
    sweep.write_sweep(options.folder, planned)
    show(sweep.sweep_table(planned))
    say("", *sweep.how_to_train(options.folder, planned))
