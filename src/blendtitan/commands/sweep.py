"""``blendtitan sweep``."""

import argparse

from blendtitan.commands.local_path import local_path
from blendtitan.terminal import say

SUMMARY = "many blends of the same corpora, and the losses of their runs"

MANUAL = """\
Write one configuration for each of many blends of a run's corpora, and a table of their shares;
and, when they are trained, collect their losses for a search for the best blend.

With --config, FOLDER is written: blend-000.toml and so on, each the configuration given, with
comments, with a blend (blendcorpus.segment, from step 0 on) and a job.dump_folder of its own; and
shares.csv, which has a line for each run and a column for each corpus. Data, file list and catalog
are the same for all. Paths stay as they are, so train from where this command is run. The base is
the blend of the configuration's file list. The blends are

  --method grid             all whose shares are multiples of 1 / --levels; --runs: so many of them
  --method dirichlet        --runs random ones: near to the base, the nearer the larger
                            --concentration is; without it anywhere, all blends as likely
  --method one-at-a-time    the base; then each corpus's share times each of --factors, the others
                            in their proportions

Only the shares of --corpora change, among each other; of one-at-a-time, theirs one by one. A share
of 0 leaves a corpus out; --min-share moves all blends inwards so that none has less. The same
arguments give the same blends, and a larger --runs of dirichlet keeps the first ones, so such a
sweep may grow. Another sweep in the same folder is an error. So are blends that a run of this
length could not read within blendcorpus.max_epochs.

With --collect, the losses of the runs in FOLDER are written to losses.csv in it: run, steps logged,
shares, and of the blend and of each corpus the training loss (the mean of the last --last steps
logged) and the last validation loss. What a run did not log is left empty, as are the losses of
runs that are not finished. ratios.csv and metrics.csv have the runs that are finished: shares and
losses apart, for tools that read two files. A run that was made with other shares than shares.csv
has is an error. So is a file of one of these names that --collect did not write, unless --overwrite
replaces it.
"""

EXAMPLE = """\
example:
  blendtitan sweep outputs/sweep --config configs/debug.toml --method grid --levels 2
  blendtitan sweep outputs/near --config configs/debug.toml --method dirichlet --runs 32 \\
    --concentration 20 --seed 1
  blendtitan sweep outputs/single --config configs/debug.toml --method one-at-a-time \\
    --factors 0.5 2
  blendtitan sweep outputs/sweep --collect
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which arguments the command takes."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=local_path, help="folder of the sweep and of its runs")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--config", metavar="CONFIG", type=local_path, help="TOML file of a run, or its folder"
    )
    action.add_argument("--collect", action="store_true", help="collect the losses of the runs")
    add(
        "--method",
        default="dirichlet",
        help="grid, dirichlet or one-at-a-time (default: %(default)s)",
    )
    add("--runs", metavar="N", type=int, help="number of blends")
    add("--seed", metavar="N", type=int, default=0, help="chooses them (default: %(default)s)")
    add("--concentration", metavar="X", type=float, help="how near to the base they are drawn")
    add("--levels", metavar="N", type=int, help="steps of a grid from 0 to 1")
    add("--factors", metavar="X", nargs="+", type=float, help="what a share is multiplied with")
    add("--corpora", metavar="CORPUS", nargs="+", default=(), help="whose shares change")
    add("--min-share", metavar="X", type=float, help="least share of a corpus (default: 0)")
    add(
        "--ranks",
        metavar="N",
        type=int,
        help="data-parallel ranks, where training.global_batch_size is not set",
    )
    add(
        "--last",
        metavar="N",
        type=int,
        default=10,
        help="steps logged that a training loss is the mean of (default: %(default)s)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="with --collect: replace tables that it did not write",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.collect:
        _collect(options)
    else:
        _sweep(options)


def _sweep(options: argparse.Namespace) -> None:
    from blendtitan.mixture.method import SweepConfig
    from blendtitan.mixture.report import how_to_train, sweep_table
    from blendtitan.mixture.sweep import plan_sweep, write_sweep
    from blendtitan.tables import show

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
    sweep = plan_sweep(options.config, config, ranks=options.ranks)
    write_sweep(options.folder, sweep)
    show(sweep_table(sweep))
    say("", *how_to_train(options.folder, sweep))


def _collect(options: argparse.Namespace) -> None:
    from blendtitan.mixture.losses import read_losses, write_losses
    from blendtitan.mixture.report import losses_table
    from blendtitan.tables import show

    runs = read_losses(options.folder, last=options.last)
    write_losses(options.folder, runs, overwrite=options.overwrite)
    show(losses_table(runs))
    finished = sum(run.finished for run in runs)
    say("", f"{finished} of {len(runs)} runs are finished: {options.folder / 'losses.csv'}")
