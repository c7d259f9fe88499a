"""Figures for plotly.js: plain values, with names in place of colours.

``style.json`` has the common style. Figures name colours ``@ink`` or ``@series0``; the page
replaces the names by those of its theme. Series have the colours of Okabe and Ito, which
colour-blind readers can distinguish, lightened in the dark theme.
"""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from blendtitan.runs.report.documents import CorpusLengths
from blendtitan.runs.report.facts import BlendCurve, CorpusFacts, FloatArray, RunFacts
from blendtitan.runs.scalars import Scalars

Figure = dict[str, Any]
"""``data`` and ``layout``."""


def package_text(name: str) -> str:
    """A file of this package."""
    return files("blendtitan.runs.report").joinpath(name).read_text(encoding="utf-8")


STYLE: dict[str, Any] = json.loads(package_text("style.json"))
LIGHT: dict[str, str] = STYLE["light"]
DARK: dict[str, str] = STYLE["dark"]

MOST_CORPORA = sum(name.startswith("series") for name in LIGHT)
"""Most corpora to draw one by one; the others are drawn together, or left out."""

_MOST_ROWS = 24
_MOST_POINTS = 600
_FEW_POINTS = 60
_MOST_LABELS = 8
_WIDE = 4.0


def series(number: int) -> str:
    """Name of the colour of series ``number``."""
    return f"@series{number % MOST_CORPORA}"


def _style(kind: str, number: int) -> str:
    """Dash, symbol or pattern of series ``number``."""
    return STYLE[kind][number % len(STYLE[kind])]


def shown(name: str) -> str:
    """A name escaped for plotly.js, which interprets HTML and ``%{y}``."""
    return html.escape(name).replace("%{", "&#37;{")


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers rounded to six digits; None for those that are not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _figure(data: list[dict[str, Any]], x_title: str, y_title: str, **layout: Any) -> Figure:
    """A figure in the common style."""
    x = STYLE["axis"] | {"title": {"text": x_title}, "showgrid": False} | layout.pop("xaxis", {})
    y = STYLE["axis"] | {"title": {"text": y_title}} | layout.pop("yaxis", {})
    common = STYLE["layout"] | {"showlegend": len(data) > 1, "xaxis": x, "yaxis": y}
    return {"data": data, "layout": common | layout}


def _line(
    name: str, x: Iterable[float], y: Iterable[float], color: int, dash: int, symbol: int = 0
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": shown(name),
        "x": numbers(x),
        "y": numbers(y),
        "mode": "lines",
        "line": {"color": series(color), "dash": _style("dashes", dash), "width": 2},
        "marker": {"color": series(color), "symbol": _style("symbols", symbol), "size": 6},
    }


def metric_figure(
    runs: Sequence[RunFacts], metrics: Sequence[tuple[str, str]], y_title: str
) -> Figure | None:
    """``(metric, name in the legend)`` of all runs over their steps; None if no run logged any."""
    lines: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        for m, (metric, called) in enumerate(metrics):
            if metric in run.metrics:
                name = run.name if len(metrics) == 1 else f"{run.name}: {called}"
                name, color = (called, m) if len(runs) == 1 else (name, r)
                lines.append(_line(name, *thinned(run.metrics[metric]), color, m, m))
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
                lines.append(_line(name, *thinned(run.metrics[metric]), c, r, c))
    return _over_steps(lines, runs, y_title)


def thinned(scalars: Scalars) -> tuple[FloatArray, FloatArray]:
    """Steps and values; long series become means of neighbours."""
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
        "shapes": [STYLE["mark"] | {"x0": step, "x1": step} for step, _ in marks],
        "annotations": [STYLE["label"] | {"x": step, "text": label} for step, label in marks],
    }


def epochs_figure(runs: Sequence[RunFacts]) -> Figure:
    """Epochs of each corpus: so far, and by the end of the run."""
    ends: dict[str, float] = {}
    for corpus in (corpus for run in runs for corpus in run.corpora):
        ends[corpus.name] = max(ends.get(corpus.name, 0.0), corpus.epochs_at_end)
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
    scale = {"type": "log", "dtick": 1} if is_wide else {"type": "linear", "rangemode": "tozero"}
    rows = {"type": "category", "categoryorder": "array", "categoryarray": [*map(shown, names)]}
    return _figure(
        dots,
        "epochs",
        "",
        height=170 + 26 * len(names),
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis=scale | {"showgrid": True},
        yaxis=rows,
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
        "marker": {"color": series(run), "symbol": _style("symbols", run) + style, "size": 11},
        "hovertemplate": "%{y}: %{x:.4g} epochs",
    }


def lengths_figure(lengths: Sequence[tuple[str, CorpusLengths]]) -> Figure:
    """Histograms of document lengths, one line for each corpus."""
    lines: list[dict[str, Any]] = []
    for c, (name, own) in enumerate(lengths):
        middles = np.sqrt(np.maximum(own.edges[:-1], 0.5) * own.edges[1:])
        line = _line(name, middles, 100 * own.fractions, c, c)
        lines.append(line | {"hovertemplate": "%{y:.2f} %"})
    x, y = {"type": "log", "dtick": 1}, {"rangemode": "tozero"}
    return _figure(lines, "tokens of a document", "documents, %", xaxis=x, yaxis=y)


def blend_figure(curve: BlendCurve, *, reached_step: int = 0) -> Figure:
    """The blend over training: stacked shares, against the configured ones as dashed lines.

    ``reached_step`` is the last trained step; 0: the run has not begun.
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
    achieved, configured = (
        np.concatenate([shares[:most], shares[most:].sum(axis=0, keepdims=True)])
        for shares in (achieved, configured)
    )
    return [*names[:most], f"{len(names) - most:,} others"], achieved, configured


def _band(
    curve: BlendCurve, number: int, name: str, achieved: FloatArray, configured: FloatArray
) -> dict[str, Any]:
    color = "@others" if number >= MOST_CORPORA else series(number)
    of_bin = np.searchsorted(curve.segment_steps, curve.bin_steps[:-1], side="right") - 1
    asked = configured[of_bin]
    return STYLE["band"] | {
        "name": shown(name),
        "x": numbers(curve.bin_steps),
        "y": numbers([*achieved, achieved[-1]]),
        "customdata": numbers([*asked, asked[-1]]),
        "line": {"shape": "hv", "width": 0.5, "color": color},
        "fillcolor": color,
        "fillpattern": STYLE["pattern"] | {"shape": _style("patterns", number)},
    }


def _boundaries(curve: BlendCurve, configured: FloatArray) -> Iterator[dict[str, Any]]:
    """The boundaries of the bands if every share were as configured."""
    steps = numbers([*curve.segment_steps, curve.bin_steps[-1]])
    tops = np.cumsum(configured, axis=0)[:-1]
    for number, shares in enumerate(tops):
        is_last = number + 1 == len(tops)
        # Between narrow bands there is no room for lines; the last one is above all of them.
        if is_last or configured[number].max() >= _WIDE:
            y = numbers([*shares, shares[-1]])
            yield STYLE["boundary"] | {"showlegend": is_last, "x": steps, "y": y}


def _marks(curve: BlendCurve) -> Iterator[tuple[float, str]]:
    """The starts of segments, labelled while there are few."""
    is_few = len(curve.segment_steps) <= _MOST_LABELS
    for step, is_phase in zip(curve.segment_steps[1:], curve.is_phase[1:], strict=True):
        label = f"{'changed on resume' if is_phase else 'segment'} after {step:,.6g}"
        yield float(step), label if is_few else ""
