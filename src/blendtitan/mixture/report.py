"""What ``blendtitan sweep`` shows."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from blendtitan.mixture.losses import RunLosses
from blendtitan.mixture.sweep import Sweep
from blendtitan.tables import Table, number_table


def sweep_table(sweep: Sweep) -> Table:
    """The shares of each corpus: in the base, and the least, mean and largest of the blends."""
    table = number_table("corpus", "base", "least", "mean", "largest")
    columns = (sweep.base, sweep.blends.min(0), sweep.blends.mean(0), sweep.blends.max(0))
    for name, *shares in zip(sweep.corpora, *columns, strict=True):
        table.add_row(name, *(f"{share:.2%}" for share in shares))
    return table


def how_to_train(folder: Path, sweep: Sweep) -> Iterator[str]:
    """Lines with the commands that train the runs and collect their losses."""
    quoted = shlex.quote(str(folder))
    yield (
        f"{len(sweep.blends)} configurations in {folder}, and shares.csv. Train them from this "
        f"folder, one after the other or each as a job:"
    )
    yield from ("", f"  for config in {quoted}/blend-*.toml; do")
    yield (
        "    torchrun --nproc-per-node 1 -m blendtitan.titan.train "
        '--job.config_file "$config" || break'
    )
    yield from ("  done", "", "A run that is started again resumes from its last checkpoint. Then:")
    yield from ("", f"  blendtitan sweep {quoted} --collect")


def losses_table(runs: Iterable[RunLosses]) -> Table:
    """How far each run is, and the blend's losses of those that are finished."""
    table = number_table("run", "steps", "loss", "validation loss")
    for run in runs:
        steps = "not begun" if run.steps is None else f"{run.logged:,} of {run.steps:,}"
        losses = [run.losses.get(column) for column in ("loss", "valid_loss")]
        table.add_row(run.run, steps, *("" if x is None else f"{x:.4f}" for x in losses))
    return table
