"""Draw the losses of runs from their TensorBoard files, and print them as a table.

    python experiments/draw.py PICTURE NAME=FOLDER[,FOLDER] ...

FOLDER is a run's ``job.dump_folder``. All event files below it are one run, as are several folders
joined by commas. Needs ``pip install 'blendtitan[plots]'``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAINING = "loss_metrics/global_avg_loss"
VALIDATION = "validation_metrics/loss"
CORPUS = "loss_metrics/loss/"

Curves = dict[str, list[tuple[int, float]]]
"""Metric to steps and values, steps of an event file growing, event files one after the other."""


def main() -> None:
    """Draw the runs that the command line names."""
    picture, *named = sys.argv[1:]
    runs = {}
    for argument in named:
        name, _, folders = argument.partition("=")
        runs[name] = list(read_parts(folders.split(",")))
    draw(runs, Path(picture))
    for name, parts in runs.items():
        sys.stdout.write(table_row(name, parts) + "\n")


def read_parts(folders: list[str]) -> Iterator[Curves]:
    """The curves of each event file, in the order in which they were written."""
    files = [file for folder in folders for file in Path(folder).rglob("events.out.tfevents.*")]
    for file in sorted(files, key=lambda file: file.name):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        yield {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }


def draw(runs: dict[str, list[Curves]], picture: Path) -> None:
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


def draw_losses(axes: Axes, runs: dict[str, list[Curves]]) -> None:
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


def draw_corpora(axes: Axes, name: str, parts: list[Curves]) -> None:
    """Lines of the training losses of one run's corpora."""
    for tag in sorted({tag for part in parts for tag in part if tag.startswith(CORPUS)}):
        points = sorted(merged(parts, tag).items())
        axes.plot(*columns(points), linewidth=1.4, label=tag.removeprefix(CORPUS))
    axes.set(title=f"per corpus: {name}")


def columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Steps and values."""
    return [step for step, _ in points], [value for _, value in points]


def merged(parts: list[Curves], tag: str) -> dict[int, float]:
    """Value of each step, of the last part that has it."""
    return {step: value for part in parts for step, value in part.get(tag, [])}


def table_row(name: str, parts: list[Curves]) -> str:
    """A row of a Markdown table: first and last losses, and the last ones of corpora."""
    cells = [name]
    for tag in (TRAINING, VALIDATION):
        values = merged(parts, tag)
        first, last = min(values), max(values)
        cells.append(f"{values[first]:.4f} (step {first}), {values[last]:.4f} (step {last})")
    tags = sorted({tag for part in parts for tag in part if tag.startswith(f"{VALIDATION}/")})
    last_of = {tag.rpartition("/")[2]: merged(parts, tag) for tag in tags}
    cells.append(", ".join(f"{corpus} {max(v.items())[1]:.4f}" for corpus, v in last_of.items()))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
