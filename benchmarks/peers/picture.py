"""A picture of the results: reading speed, and start-up of 2,419 files."""

from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from results import Results
from series import NAMES, Rounds, chosen, number, rounds_of, uses

OURS, LIMIT, PEER = "#c0392b", "#9aa5b1", "#34618f"

Bar = tuple[str, str, Rounds]
"""Use of an engine, what its bar is called, and its figures."""


def draw(results: Results, path: Path) -> None:
    """Draw what the sections ``reading`` and ``startup`` say, where they were measured."""
    panels: list[tuple[str, list[Bar]]] = []
    if "reading" in results:
        rows = chosen(results["reading"][1], source="one", batch=8)
        speeds = [
            (use, _plain(use), _scaled(rounds_of(rows, use, "tokens_per_s"), 1e-6))
            for use in uses(rows)
        ]
        panels.append(("reading 8 x 4096, M tokens/s (longer is better)", speeds))
    if "startup" in results:
        rows = chosen(results["startup"][1], source="many")
        starts = [
            (use, f"{_plain(use)}, {'cold' if cold else 'warm'}", found)
            for use in uses(rows)
            for cold in (True, False)
            if (found := rounds_of(rows, use, "start_s", cold=cold))
        ]
        panels.append(("start-up with 2,419 files, seconds (shorter is better)", starts))
    figure, axes = plt.subplots(1, max(1, len(panels)), figsize=(13, 4.8), squeeze=False)
    for place, (title, bars) in zip(axes[0], panels, strict=False):
        _bars(place, bars, title)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _bars(axes: Axes, bars: list[Bar], title: str) -> None:
    """Medians on a logarithmic axis, with lines from minimum to maximum."""
    bars = [bar for bar in bars if bar[2]]
    for place, (use, _, rounds) in enumerate(bars):
        values = list(rounds.values())
        middle = median(values)
        ends = [[middle - min(values)], [max(values) - middle]]
        axes.barh(place, middle, color=_colour(use), xerr=ends, error_kw={"lw": 1})
        axes.annotate(
            number(middle), (max(values), place), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(bars)), [name for _, name, _ in bars], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _plain(use: str) -> str:
    return NAMES[use].replace("*", "").replace("`", "")


def _colour(use: str) -> str:
    if use.startswith("ours"):
        return OURS
    return LIMIT if use.startswith(("limit", "floor")) else PEER


def _scaled(rounds: Rounds, scale: float) -> Rounds:
    return {round_id: value * scale for round_id, value in rounds.items()}
