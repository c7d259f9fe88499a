"""Draw the losses of runs from their TensorBoard files, and print them as a table.

    python experiments/draw.py PICTURE NAME=FOLDER[,FOLDER] ...

FOLDER is a run's ``job.dump_folder``. All event files below it are one run, as are several folders
joined by commas. Needs ``pip install 'blendtitan[plots]'``.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from blendtitan.runs.scalars import Logged, joined, read_starts

TRAINING = "loss_metrics/global_avg_loss"
VALIDATION = "validation_metrics/loss"
CORPUS = "loss_metrics/loss/"


def main() -> None:
    """Draw the runs that the command line names."""
    picture, *named = sys.argv[1:]
    runs = {}
    for argument in named:
        name, _, folders = argument.partition("=")
        runs[name] = [
            start.logged for each in folders.split(",") for start in read_starts(Path(each))
        ]
    draw(runs, Path(picture))
    for name, parts in runs.items():
        sys.stdout.write(table_row(name, parts) + "\n")


def draw(runs: dict[str, list[Logged]], picture: Path) -> None:
    """Training and validation losses of all runs, and those of the first run's corpora."""
    figure, (losses, corpora) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    draw_losses(losses, runs)
    draw_corpora(corpora, next(iter(runs)), next(iter(runs.values())))
    for axes in (losses, corpora):
        axes.set(xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=100, metadata={"Software": None})


def draw_losses(axes: Axes, runs: dict[str, list[Logged]]) -> None:
    """Lines of training losses and dots of validation losses.

    The last line is thin and the others are wide, so that equal ones all show.
    """
    lines = [
        (name if len(parts) == 1 else f"{name}, start {number}", part)
        for name, parts in runs.items()
        for number, part in enumerate(parts, start=1)
    ]
    for number, (label, part) in enumerate(lines):
        colour = f"C{number}"
        style = {"linewidth": 1.4} if number == len(lines) - 1 else {"linewidth": 4, "alpha": 0.4}
        axes.plot(*columns(part[TRAINING]), color=colour, label=label, **style)
        axes.plot(*columns(part.get(VALIDATION, [])), "o", color=colour, markersize=4)
    axes.set(title="loss (dots: validation)")


def draw_corpora(axes: Axes, name: str, parts: list[Logged]) -> None:
    """Lines of the training losses of one run's corpora."""
    for tag, scalars in joined(parts).items():
        if tag.startswith(CORPUS):
            label = tag.removeprefix(CORPUS)
            axes.plot(scalars.steps, scalars.values, linewidth=1.4, label=label)
    axes.set(title=f"per corpus: {name}")


def columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Steps and values."""
    return [step for step, _ in points], [value for _, value in points]


def table_row(name: str, parts: list[Logged]) -> str:
    """A row of a Markdown table: first and last losses, and the last ones of corpora."""
    scalars = joined(parts)
    cells = [name]
    for tag in (TRAINING, VALIDATION):
        steps, values = scalars[tag].steps, scalars[tag].values
        cells.append(f"{values[0]:.4f} (step {steps[0]}), {values[-1]:.4f} (step {steps[-1]})")
    last_of = {
        tag.removeprefix(f"{VALIDATION}/"): each.values[-1]
        for tag, each in scalars.items()
        if tag.startswith(f"{VALIDATION}/")
    }
    cells.append(", ".join(f"{corpus} {loss:.4f}" for corpus, loss in last_of.items()))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
