"""``blendtitan plan``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say, say_json

if TYPE_CHECKING:
    from blendtitan.runs.plan import RunPlan

SUMMARY = "what a run will read: shares, epochs, splits, warnings"

MANUAL = """\
Show what a run will read, from its configuration and the .idx files: for each corpus its shards,
documents, tokens and share, and at the end of the run the tokens read, the epochs, the tokens left
unused and the bytes to read; the shares and epochs of every segment; the sizes of the splits.

What is likely to be a mistake is listed as warnings: repetition beyond blendcorpus.max_epochs, a
valid split of less than a global batch or 100 samples, documents that do not end in EOD, a
vocabulary larger than a shard's token type holds, rows shorter than a window, corpora without
documents for validation, tokens that the run does not reach. The exit status is 0 all the same.

CONFIG is the TOML file of a run, or a run's job.dump_folder. Nothing is trained; the run is taken
to go from its first step to its last without being changed.

--picture FILE.html also writes the blend over the steps of the run as a picture, in one file that
needs no network. It needs plotly: pip install 'blendtitan[report]'. An earlier picture or report
of the same name is replaced; any other file is an error, unless --overwrite is given.
"""

EXAMPLE = """\
example:
  blendtitan plan configs/debug.toml
  blendtitan plan outputs/debug --json
  blendtitan plan configs/debug.toml --picture blend.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("config", metavar="CONFIG", type=local_path, help="TOML file of a run, or its folder")
    add(
        "--ranks",
        metavar="N",
        type=int,
        help="data-parallel ranks, where training.global_batch_size is not set",
    )
    add("--json", action="store_true", help="print JSON in place of tables")
    add(
        "--picture",
        metavar="FILE",
        type=local_path,
        help="HTML file to write a picture of the blend to",
    )
    add("--overwrite", action="store_true", help="replace a FILE that is not an earlier picture")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.runs.plan import plan_run
    from blendtitan.runs.plan_report import plan_headline, plan_json, plan_tables
    from blendtitan.runs.run import read_run
    from blendtitan.tables import show

    if options.picture is not None and not options.overwrite:
        _check_picture(options.picture)
    plan = plan_run(read_run(options.config, ranks=options.ranks))
    if options.picture is not None:
        _write_picture(plan, options.picture, overwrite=options.overwrite)
    if options.json:
        say_json(plan_json(plan))
        return
    say(plan_headline(plan))
    for table in plan_tables(plan):
        say()
        show(table)
    if plan.warnings:
        say("", "Warnings:")
        say(*(f"- {warning}" for warning in plan.warnings))


def _check_picture(path: Path) -> None:
    from blendtitan.runs.report.page import check_page

    check_page(path)


def _write_picture(plan: "RunPlan", path: Path, *, overwrite: bool) -> None:
    from blendtitan.runs.plan_report import plan_headline
    from blendtitan.runs.report.blend_curve import blend_curve
    from blendtitan.runs.report.page import write_page
    from blendtitan.runs.report.sections import blend_page
    from blendtitan.runs.source import source_of_run

    curve = blend_curve(source_of_run(plan.run).slots, max(1, plan.run.num_samples))
    page = blend_page(str(plan.run.path), plan_headline(plan), curve)
    write_page(page, path, overwrite=overwrite)
