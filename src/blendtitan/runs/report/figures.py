"""Figures as plotly.js takes them: plain values, with names in place of colours."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.runs.report.colors import DASHES, NUM_SERIES, SYMBOLS, series
from blendtitan.runs.report.facts import CorpusFacts, RunFacts
from blendtitan.runs.report.lengths import CorpusLens
from blendtitan.runs.scalars import Scalars

Figure = dict[str, Any]
"""``data`` and ``layout``."""

OTHERS = "others"
"""Corpora beyond those that are drawn one by one."""

MOST_CORPORA = NUM_SERIES
_MOST_ROWS = 24
_MOST_POINTS = 600
_FEW_POINTS = 60


def figure(data: list[dict[str, Any]], x_title: str, y_title: str, **layout: Any) -> Figure:
    """A figure of the house's look."""
    axis = {
        "gridcolor": "@grid",
        "zerolinecolor": "@grid",
        "linecolor": "@muted",
        "ticks": "outside",
        "tickcolor": "@muted",
        "automargin": True,
    }
    own_x, own_y = layout.pop("xaxis", {}), layout.pop("yaxis", {})
    return {
        "data": data,
        "layout": {
            "height": 400,
            "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": "@ink"},
            "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@grid", "font": {"color": "@ink"}},
            "hovermode": "x unified",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "@muted", "activecolor": "@ink"},
            "legend": {"orientation": "h", "y": -0.28, "yanchor": "top", "x": 0},
            "showlegend": len(data) > 1,
            "xaxis": axis | {"title": {"text": x_title}, "showgrid": False} | own_x,
            "yaxis": axis | {"title": {"text": y_title}} | own_y,
        }
        | layout,
    }


def shown(name: str) -> str:
    """A name as plotly.js shows it as it is: it takes HTML for styles, and ``%{y}`` for a value."""
    return html.escape(name).replace("%{", "&#37;{")


def line(
    name: str,
    x: Iterable[float],
    y: Iterable[float],
    *,
    color: str,
    dash: str = "solid",
    symbol: str = "circle",
    **more: Any,
) -> dict[str, Any]:
    """A line."""
    return {
        "type": "scatter",
        "name": shown(name),
        "x": numbers(x),
        "y": numbers(y),
        "mode": "lines",
        "line": {"color": color, "dash": dash, "width": 2},
        "marker": {"color": color, "symbol": symbol, "size": 6},
    } | more


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers of six digits; None for those that are none."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def metric_figure(
    runs: Sequence[RunFacts], metrics: Sequence[tuple[str, str]], y_title: str
) -> Figure | None:
    """Metrics of all runs over their steps; None where no run has any.

    Args:
        runs: Each has a colour of its own, or, of a single run, each metric.
        metrics: ``(metric, what it is called)``; each has its dashes.
        y_title: Of the axis.
    """
    lines: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        for m, (metric, called) in enumerate(metrics):
            if metric in run.metrics:
                steps, values = thinned(run.metrics[metric])
                look = {"dash": DASHES[m % len(DASHES)], "symbol": SYMBOLS[m % len(SYMBOLS)]}
                name = called if len(runs) == 1 else _of_run(run, called, len(metrics))
                color = series(m if len(runs) == 1 else r)
                lines.append(line(name, steps, values, color=color, **look))
    return _over_steps(lines, runs, y_title)


def corpus_metric_figure(
    runs: Sequence[RunFacts], prefix: str, names: Sequence[str], y_title: str
) -> Figure | None:
    """A metric of some corpora: a colour for each corpus, dashes for each run."""
    lines: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        for c, corpus in enumerate(names):
            metric = f"{prefix}/{corpus}"
            if metric in run.metrics:
                steps, values = thinned(run.metrics[metric])
                look = {"color": series(c), "symbol": SYMBOLS[c % len(SYMBOLS)]}
                name = corpus if len(runs) == 1 else f"{corpus} ({run.name})"
                lines.append(line(name, steps, values, dash=DASHES[r % len(DASHES)], **look))
    return _over_steps(lines, runs, y_title)


def thinned(scalars: Scalars) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values; of many, the means of neighbours."""
    steps, values = scalars.steps.astype(np.float64), scalars.values
    if len(steps) <= _MOST_POINTS:
        return steps, values
    starts = np.linspace(0, len(steps), _MOST_POINTS, endpoint=False).astype(int)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def epochs_figure(runs: Sequence[RunFacts]) -> Figure:
    """How often each corpus is read: so far, and by the end of the run."""
    ends = {c.name: 0.0 for run in runs for c in run.corpora}
    for run in runs:
        for c in run.corpora:
            ends[c.name] = max(ends[c.name], c.epochs_at_end)
    names = sorted(ends, key=lambda name: ends[name])[-_MOST_ROWS:]
    dots: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        of_run = "" if len(runs) == 1 else f" ({run.name})"
        own = {c.name: c for c in run.corpora}
        known = [own[name] for name in names if name in own]
        if 0 < run.reached_step < run.last_step:
            so_far = [c.epochs for c in known]
            dots.append(
                _dots(f"after step {run.reached_step:,}{of_run}", known, so_far, r, "-open")
            )
        dots.append(_dots(f"at the end{of_run}", known, [c.epochs_at_end for c in known], r, ""))
    shown_ends = [ends[name] for name in names if ends[name] > 0]
    wide = bool(shown_ends) and max(shown_ends) > 30 * min(shown_ends)
    return figure(
        dots,
        "epochs",
        "",
        height=170 + 26 * len(names),
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"type": "log" if wide else "linear", "showgrid": True}
        | ({"dtick": 1} if wide else {"rangemode": "tozero"}),
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(map(shown, names)),
        },
    )


def _dots(
    name: str, corpora: Sequence[CorpusFacts], epochs: Sequence[float], run: int, style: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": shown(name),
        "x": numbers(epochs),
        "y": [shown(corpus.name) for corpus in corpora],
        "marker": {"color": series(run), "symbol": SYMBOLS[run % len(SYMBOLS)] + style, "size": 11},
        "hovertemplate": "%{y}: %{x:.4g} epochs",
    }


def lens_figure(lens: Sequence[tuple[str, CorpusLens]]) -> Figure:
    """Histograms of document lengths, one line for each corpus."""
    lines = [
        line(
            name,
            np.sqrt(np.maximum(own.edges[:-1], 0.5) * own.edges[1:]),
            100 * own.fractions,
            color=series(c),
            dash=DASHES[c % len(DASHES)],
            hovertemplate="%{y:.2f} %",
        )
        for c, (name, own) in enumerate(lens)
    ]
    return figure(
        lines,
        "tokens of a document",
        "documents, %",
        xaxis={"type": "log", "dtick": 1},
        yaxis={"rangemode": "tozero"},
    )


def segment_marks(steps: Sequence[float], labels: Sequence[str]) -> dict[str, Any]:
    """Vertical lines with a label each, as a part of a layout."""
    return {
        "shapes": [
            {
                "type": "line",
                **{"x0": step, "x1": step, "y0": 0, "y1": 1, "yref": "paper"},
                "line": {"color": "@ink", "width": 1.2, "dash": "dot"},
            }
            for step in steps
        ],
        "annotations": [
            {
                **{"x": step, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False},
                "text": label,
                "font": {"size": 11, "color": "@muted"},
            }
            for step, label in zip(steps, labels, strict=True)
        ],
    }


def _over_steps(
    lines: list[dict[str, Any]], runs: Sequence[RunFacts], y_title: str
) -> Figure | None:
    if not lines:
        return None
    if max(len(each["x"]) for each in lines) <= _FEW_POINTS:
        lines = [each | {"mode": "lines+markers"} for each in lines]
    changes = {step for run in runs for step in run.curve.segment_steps[1:].tolist()}
    logged = max(x for each in lines for x in each["x"])
    steps = sorted(step for step in changes if step <= logged)
    return figure(lines, "step", y_title, **segment_marks(steps, [""] * len(steps)))


def _of_run(run: RunFacts, called: str, num_metrics: int) -> str:
    return run.name if num_metrics == 1 else f"{run.name}: {called}"
