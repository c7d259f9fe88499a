"""Figures as plotly.js takes them: plain values, with names in place of colours.

Figures name colours ``@ink`` or ``@series0``; the page replaces the names by those of its theme.
Series have the colours of Okabe and Ito, which colour-blind readers can distinguish, lightened in
the dark theme.
"""

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from blendtitan.runs.report.documents import CorpusLengths
from blendtitan.runs.report.facts import BlendCurve, CorpusFacts, FloatArray, RunFacts
from blendtitan.runs.scalars import Scalars

Figure = dict[str, Any]
"""``data`` and ``layout``."""

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#dfe3e8",
    "accent": "#0b63b0",
    "others": "#a9b1ba",
    "series0": "#0072b2",
    "series1": "#d55e00",
    "series2": "#009e73",
    "series3": "#c4609c",
    "series4": "#d99000",
    "series5": "#4aa8de",
    "series6": "#3a3f46",
}

DARK = {
    "paper": "#14171c",
    "panel": "#1c2027",
    "ink": "#e6e9ed",
    "muted": "#9aa4af",
    "grid": "#323944",
    "accent": "#6cb6ff",
    "others": "#6b7580",
    "series0": "#3f9fe8",
    "series1": "#f0803c",
    "series2": "#2fc297",
    "series3": "#e08fc0",
    "series4": "#f2b632",
    "series5": "#9bd8f8",
    "series6": "#f4ec70",
}

MOST_CORPORA = sum(name.startswith("series") for name in LIGHT)
"""Corpora that are drawn one by one; the others are drawn together, or left out."""

OTHERS = "others"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross")
_PATTERNS = ("", "/", "x", "\\", "-", "+", "|", ".")

_MOST_ROWS = 24
_MOST_POINTS = 600
_FEW_POINTS = 60
_MOST_LABELS = 8
_WIDE = 4.0


def series(number: int) -> str:
    """Name of the colour of the ``number``-th thing that is drawn."""
    return f"@series{number % MOST_CORPORA}"


def shown(name: str) -> str:
    """A name as plotly.js shows it unchanged: it takes HTML for styles, ``%{y}`` for a value."""
    return html.escape(name).replace("%{", "&#37;{")


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers of six digits; None for those that are not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _figure(data: list[dict[str, Any]], x_title: str, y_title: str, **layout: Any) -> Figure:
    """A figure in the common style."""
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


def _line(
    name: str, x: Iterable[float], y: Iterable[float], color: int, dash: int, **more: Any
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": shown(name),
        "x": numbers(x),
        "y": numbers(y),
        "mode": "lines",
        "line": {"color": series(color), "dash": _DASHES[dash % len(_DASHES)], "width": 2},
        "marker": {"color": series(color), "symbol": "circle", "size": 6},
    } | more


def metric_figure(
    runs: Sequence[RunFacts], metrics: Sequence[tuple[str, str]], y_title: str
) -> Figure | None:
    """Metrics of all runs over their steps; None where no run has any.

    Args:
        runs: Each has a colour of its own; with a single run, each metric has one.
        metrics: ``(metric, name in the legend)``; each has its dashes.
        y_title: Title of the axis.
    """
    lines: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        for m, (metric, called) in enumerate(metrics):
            if metric in run.metrics:
                name = run.name if len(metrics) == 1 else f"{run.name}: {called}"
                name, color = (called, m) if len(runs) == 1 else (name, r)
                line = _line(name, *thinned(run.metrics[metric]), color, m)
                line["marker"]["symbol"] = _SYMBOLS[m % len(_SYMBOLS)]
                lines.append(line)
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
                name = corpus if len(runs) == 1 else f"{corpus} ({run.name})"
                line = _line(name, *thinned(run.metrics[metric]), c, r)
                line["marker"]["symbol"] = _SYMBOLS[c % len(_SYMBOLS)]
                lines.append(line)
    return _over_steps(lines, runs, y_title)


def thinned(scalars: Scalars) -> tuple[FloatArray, FloatArray]:
    """Steps and values; of many, the means of neighbours."""
    steps, values = scalars.steps.astype(np.float64), scalars.values
    if len(steps) <= _MOST_POINTS:
        return steps, values
    starts = np.linspace(0, len(steps), _MOST_POINTS, endpoint=False).astype(int)
    counts = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _over_steps(
    lines: list[dict[str, Any]], runs: Sequence[RunFacts], y_title: str
) -> Figure | None:
    if not lines:
        return None
    if max(len(each["x"]) for each in lines) <= _FEW_POINTS:
        lines = [each | {"mode": "lines+markers"} for each in lines]
    changes = {step for run in runs for step in run.curve.segment_steps[1:].tolist()}
    logged = max(x for each in lines for x in each["x"])
    marks = [(step, "") for step in sorted(changes) if step <= logged]
    return _figure(lines, "step", y_title, **_segment_marks(marks))


def _segment_marks(marks: Sequence[tuple[float, str]]) -> dict[str, Any]:
    """Vertical lines with a label each, as a part of a layout."""
    return {
        "shapes": [
            {
                "type": "line",
                **{"x0": step, "x1": step, "y0": 0, "y1": 1, "yref": "paper"},
                "line": {"color": "@ink", "width": 1.2, "dash": "dot"},
            }
            for step, _ in marks
        ],
        "annotations": [
            {
                **{"x": step, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False},
                "text": label,
                "font": {"size": 11, "color": "@muted"},
            }
            for step, label in marks
        ],
    }


def epochs_figure(runs: Sequence[RunFacts]) -> Figure:
    """Epochs of each corpus: so far, and by the end of the run."""
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
            label = f"after step {run.reached_step:,}{of_run}"
            dots.append(_dots(label, known, [c.epochs for c in known], r, "-open"))
        dots.append(_dots(f"at the end{of_run}", known, [c.epochs_at_end for c in known], r, ""))
    drawn = [ends[name] for name in names if ends[name] > 0]
    is_wide = bool(drawn) and max(drawn) > 30 * min(drawn)
    wide = {"type": "log", "showgrid": True, "dtick": 1}
    narrow = {"type": "linear", "showgrid": True, "rangemode": "tozero"}
    return _figure(
        dots,
        "epochs",
        "",
        height=170 + 26 * len(names),
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis=wide if is_wide else narrow,
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(map(shown, names)),
        },
    )


def _dots(
    name: str, corpora: Sequence[CorpusFacts], epochs: Sequence[float], run: int, style: str
) -> dict[str, Any]:
    symbol = _SYMBOLS[run % len(_SYMBOLS)] + style
    return {
        "type": "scatter",
        "mode": "markers",
        "name": shown(name),
        "x": numbers(epochs),
        "y": [shown(corpus.name) for corpus in corpora],
        "marker": {"color": series(run), "symbol": symbol, "size": 11},
        "hovertemplate": "%{y}: %{x:.4g} epochs",
    }


def lengths_figure(lengths: Sequence[tuple[str, CorpusLengths]]) -> Figure:
    """Histograms of document lengths, one line for each corpus."""
    lines: list[dict[str, Any]] = []
    for c, (name, own) in enumerate(lengths):
        middles = np.sqrt(np.maximum(own.edges[:-1], 0.5) * own.edges[1:])
        lines.append(_line(name, middles, 100 * own.fractions, c, c, hovertemplate="%{y:.2f} %"))
    return _figure(
        lines,
        "tokens of a document",
        "documents, %",
        xaxis={"type": "log", "dtick": 1},
        yaxis={"rangemode": "tozero"},
    )


def blend_figure(curve: BlendCurve, *, reached_step: int = 0) -> Figure:
    """The blend over training: stacked shares, against the configured ones as dashed lines.

    ``reached_step`` is how far the run was trained; 0: it has not begun.
    """
    names, achieved, configured = _drawn(curve)
    data = [_band(curve, c, name, achieved[c], configured[c]) for c, name in enumerate(names)]
    data += _boundaries(curve, configured)
    marks = list(_marks(curve))
    if 0 < reached_step < curve.bin_steps[-1]:
        marks.append((float(reached_step), "trained up to here"))
    return _figure(
        data,
        "step",
        "share of the samples, %",
        **_segment_marks(marks),
        height=440,
        xaxis={"range": [0, float(curve.bin_steps[-1])]},
        yaxis={"range": [0, 100]},
    )


def _drawn(curve: BlendCurve) -> tuple[list[str], FloatArray, FloatArray]:
    """The largest corpora one by one, in percent, and all others together."""
    names, most = list(curve.corpora), MOST_CORPORA
    achieved, configured = 100 * curve.achieved, 100 * curve.configured
    if len(names) <= most:
        return names, achieved, configured
    label = f"{len(names) - most:,} {OTHERS}"
    together = [
        np.concatenate([shares[:most], shares[most:].sum(axis=0, keepdims=True)])
        for shares in (achieved, configured)
    ]
    return [*names[:most], label], together[0], together[1]


def _band(
    curve: BlendCurve, number: int, name: str, achieved: FloatArray, configured: FloatArray
) -> dict[str, Any]:
    color = "@others" if number >= MOST_CORPORA else series(number)
    of_bin = np.searchsorted(curve.segment_steps, curve.bin_steps[:-1], side="right") - 1
    asked = configured[of_bin]
    return {
        "type": "scatter",
        "name": shown(name),
        "x": numbers(curve.bin_steps),
        "y": numbers([*achieved, achieved[-1]]),
        "customdata": numbers([*asked, asked[-1]]),
        "stackgroup": "blend",
        "mode": "lines",
        "line": {"shape": "hv", "width": 0.5, "color": color},
        "fillcolor": color,
        "fillpattern": {
            "shape": _PATTERNS[number % len(_PATTERNS)],
            "fillmode": "overlay",
            "fgcolor": "@paper",
            "fgopacity": 0.35,
            "size": 9,
            "solidity": 0.15,
        },
        "hovertemplate": "%{y:.2f} %, configured %{customdata:.2f} %",
    }


def _boundaries(curve: BlendCurve, configured: FloatArray) -> Iterator[dict[str, Any]]:
    """Where the bands would meet if every share were as configured."""
    steps = numbers([*curve.segment_steps, curve.bin_steps[-1]])
    tops = np.cumsum(configured, axis=0)[:-1]
    # Between narrow bands there is no room for lines; the last one is above all of them.
    is_wide = [max(shares) >= _WIDE for shares in configured[:-1].tolist()]
    for number, shares in enumerate(tops):
        if not is_wide[number] and number + 1 < len(tops):
            continue
        yield {
            "type": "scatter",
            "name": "configured",
            "legendgroup": "configured",
            "showlegend": number + 1 == len(tops),
            "x": steps,
            "y": numbers([*shares, shares[-1]]),
            "mode": "lines",
            "line": {"shape": "hv", "width": 1.6, "color": "@ink", "dash": "dash"},
            "hoverinfo": "skip",
        }


def _marks(curve: BlendCurve) -> Iterator[tuple[float, str]]:
    """Where segments begin, with a label while there are few."""
    is_few = len(curve.segment_steps) <= _MOST_LABELS
    for step, is_phase in zip(curve.segment_steps[1:], curve.is_phase[1:], strict=True):
        label = f"{'changed on resume' if is_phase else 'segment'} after {step:,.6g}"
        yield float(step), label if is_few else ""
