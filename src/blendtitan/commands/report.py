"""``blendtitan report``."""

import argparse
from pathlib import Path

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say

SUMMARY = "a run as one HTML file: blend, epochs, losses, texts"

MANUAL = """\
Write one HTML file about a run, which needs no network: the blend over training, achieved against
configured, with its segments; epochs of each corpus; loss and validation loss of each corpus, and
the time waited for data, from the run's TensorBoard files; document lengths of each corpus; sample
texts; the configuration. It is legible in light and dark, on a phone and printed; tables sort.

RUN is a run's job.dump_folder, of which the latest checkpoint with a state tells how far it came
and what was changed, or a TOML file: a run that has not begun. --compare puts others beside it.

An earlier report or picture of the same name is replaced; any other file is an error, unless
--overwrite is given.

The figures need plotly: pip install 'blendtitan[report]'
"""

EXAMPLE = """\
example:
  blendtitan report outputs/debug
  blendtitan report configs/debug.toml --output plan.html
  blendtitan report outputs/a --compare outputs/b outputs/c --output compared.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("run_path", metavar="RUN", type=local_path, help="folder of a run, or its TOML file")
    add(
        "--compare",
        metavar="RUN",
        nargs="+",
        type=local_path,
        default=[],
        help="runs to put beside it",
    )
    add(
        "--output",
        metavar="FILE",
        type=local_path,
        default=Path("report.html"),
        help="file to write (report.html)",
    )
    add("--overwrite", action="store_true", help="replace a FILE that is not an earlier report")
    add("--step", metavar="N", type=int, default=1, help="sample texts from this step on (1)")
    add(
        "--ranks",
        metavar="N",
        type=int,
        help="data-parallel ranks, where training.global_batch_size is not set",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from blendtitan.runs.report.facts import gather_runs
    from blendtitan.runs.report.page import check_page, write_page
    from blendtitan.runs.report.sections import report_page

    if not options.overwrite:
        check_page(options.output)
    paths = [options.run_path, *options.compare]
    runs = gather_runs(paths, step=options.step, ranks=options.ranks)
    size = write_page(report_page(runs), options.output, overwrite=options.overwrite)
    say(f"{options.output}: {size:,} bytes, {len(runs)} run{'s' if len(runs) > 1 else ''}")
