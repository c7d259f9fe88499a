"""Draw the losses that ``blendtitan sweep --collect`` gathered, and print them as a table.

    python experiments/draw_sweep.py PICTURE LOSSES.CSV

Needs ``pip install 'blendtitan[plots]'``.
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

Columns = dict[str, list[str]]
"""Cells of each column."""


def main() -> None:
    """Draw the table that the command line names."""
    picture, table = map(Path, sys.argv[1:])
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    draw(columns, picture)
    sys.stdout.write(markdown(columns))


def draw(columns: Columns, picture: Path) -> None:
    """The runs' shares with the blend's loss, and each corpus's loss over its share."""
    figure, (blends, corpora) = plt.subplots(1, 2, figsize=(11, 4.2))
    draw_blends(blends, columns)
    draw_corpora(corpora, columns)
    figure.tight_layout()
    figure.savefig(picture, dpi=100, metadata={"Software": None})


def draw_blends(axes: Axes, columns: Columns) -> None:
    """A bar of shares for each run, with its validation loss of the base blend behind it."""
    left = np.zeros(len(columns["run"]))
    for corpus in corpora_of(columns):
        shares = numbers(columns, f"share/{corpus}")
        axes.barh(columns["run"], shares, left=left, label=corpus)
        left += shares
    for number, loss in enumerate(numbers(columns, "valid_loss")):
        axes.text(1.02, number, f"{loss:.3f}", va="center")
    axes.invert_yaxis()
    axes.set(xlabel="share", xlim=(0, 1.15), title="blends, and validation loss of the base blend")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=4, frameon=False)


def draw_corpora(axes: Axes, columns: Columns) -> None:
    """Each corpus's validation loss over its share, and a line in the logarithm of the share."""
    for number, corpus in enumerate(corpora_of(columns)):
        shares = numbers(columns, f"share/{corpus}")
        losses = numbers(columns, f"valid_loss/{corpus}")
        axes.plot(shares, losses, "o", color=f"C{number}", label=corpus)
        slope, height = np.polyfit(np.log(shares), losses, 1)
        line = np.linspace(shares.min(), shares.max())
        axes.plot(line, slope * np.log(line) + height, color=f"C{number}", alpha=0.5)
    axes.set(xlabel="share of the corpus", title="validation loss of each corpus")
    axes.grid(alpha=0.3)
    axes.legend()


def markdown(columns: Columns) -> str:
    """A Markdown table of shares and validation losses."""
    corpora = corpora_of(columns)
    shown = {"run": columns["run"]}
    shown |= {f"share {corpus}": columns[f"share/{corpus}"] for corpus in corpora}
    losses = [("blend", "valid_loss"), *((name, f"valid_loss/{name}") for name in corpora)]
    for name, column in losses:
        shown[f"loss {name}"] = [f"{loss:.4f}" for loss in numbers(columns, column)]
    rows = [list(shown), ["---"] * len(shown), *zip(*shown.values(), strict=True)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def corpora_of(columns: Columns) -> list[str]:
    """Names of the corpora."""
    return [name.removeprefix("share/") for name in columns if name.startswith("share/")]


def numbers(columns: Columns, name: str) -> np.ndarray:
    """A column of numbers."""
    return np.array(columns[name], float)


if __name__ == "__main__":
    main()
