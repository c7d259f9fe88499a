"""The command that tries many blends: sweep."""

from argparse import Namespace

from blendtitan.commands.arguments import Arguments, Command
from blendtitan.terminal import say


def _sweep_arguments(add: Arguments) -> None:
    add.path("folder", "FOLDER", "folder of the sweep and of its runs")
    action = add.one_of(required=True)
    action.path("--config", "CONFIG", "TOML file of a run, or its folder")
    action.flag("--collect", "collect the losses of the runs")
    methods = "grid, dirichlet or one-at-a-time (default: %(default)s)"
    add.add("--method", methods, default="dirichlet")
    add.number("--runs", "N", "number of blends")
    add.number("--seed", "N", "chooses them (default: %(default)s)", default=0)
    near = "how near to the base they are drawn"
    add.number("--concentration", "X", near, type=float)
    add.number("--levels", "N", "steps of a grid from 0 to 1")
    add.number("--factors", "X", "what a share is multiplied with", nargs="+", type=float)
    add.add("--corpora", "whose shares change", metavar="CORPUS", nargs="+", default=())
    add.number("--min-share", "X", "least share of a corpus (default: 0)", type=float)
    add.ranks()
    mean = "steps logged that a training loss is the mean of (default: %(default)s)"
    add.number("--last", "N", mean, default=10)
    add.flag("--overwrite", "with --collect: replace tables that it did not write")


def _sweep(options: Namespace) -> None:
    from blendtitan.mixture import losses, sweep
    from blendtitan.mixture.blends import SweepConfig
    from blendtitan.tables import show

    if options.collect:
        runs = losses.read_losses(options.folder, last=options.last)
        losses.write_losses(options.folder, runs, overwrite=options.overwrite)
        show(losses.losses_table(runs))
        finished = sum(run.finished for run in runs)
        say("", f"{finished} of {len(runs)} runs are finished: {options.folder / losses.LOSSES}")
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


SWEEP = Command(
    summary="many blends of the same corpora, and the losses of their runs",
    manual="""\
Write one configuration for each of many blends of a run's corpora, and a table of their shares;
and, when they are trained, collect their losses for a search for the best blend.

With --config, FOLDER is written: blend-000.toml and so on, each the given configuration, with
comments, with its own blend (blendcorpus.segment, from step 0 on) and job.dump_folder; and
shares.csv, with a line for each run and a column for each corpus. Data, file list and catalog are
the same for all. Paths stay as they are, so train from where this command is run. The base is the
blend of the configuration's file list. The blends are

  --method grid             all whose shares are multiples of 1 / --levels; --runs: so many of them
  --method dirichlet        --runs random ones: near the base, the nearer the larger
                            --concentration is; without it anywhere, all blends equally likely
  --method one-at-a-time    the base; then each corpus's share times each of --factors, the others
                            in their proportions

Only the shares of --corpora change, among each other; with one-at-a-time, theirs one by one. A
share of 0 leaves a corpus out; --min-share moves all blends inwards so that none has less. The same
arguments give the same blends, and a larger --runs of dirichlet keeps the first ones, so such a
sweep may grow. Another sweep in the same folder is an error. So are blends that a run of this
length could not read within blendcorpus.max_epochs.

With --collect, the losses of the runs in FOLDER are written to losses.csv in it: run, steps logged,
shares, and for the blend and each corpus the training loss (the mean of the last --last steps
logged) and the last validation loss. What a run did not log is left empty, as are the losses of
unfinished runs. ratios.csv and metrics.csv have the finished runs: shares and losses apart, for
tools that read two files. A run that was made with other shares than shares.csv has is an error.
So is a file of one of these names that --collect did not write, unless --overwrite replaces it.
""",
    example="""\
example:
  blendtitan sweep outputs/sweep --config configs/debug.toml --method grid --levels 2
  blendtitan sweep outputs/near --config configs/debug.toml --method dirichlet --runs 32 \\
    --concentration 20 --seed 1
  blendtitan sweep outputs/single --config configs/debug.toml --method one-at-a-time \\
    --factors 0.5 2
  blendtitan sweep outputs/sweep --collect
""",
    add_arguments=_sweep_arguments,
    run=_sweep,
)
