"""Figures for plotly.js: plain values, with names in place of colours.

``style.json`` has the common style. Figures name colours ``@ink`` or ``@series0``; the page
replaces the names by those of its theme. Corpora have the colours of Okabe and Ito, which
colour-blind readers can distinguish, lightened in the dark theme. Runs have colours of their own.

``corpora`` are those of the whole page, the largest share first. A corpus has the same colour,
symbol and pattern in every figure; a run has the same colour and dashes.
"""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from blendtitan.runs.report.facts import BlendCurve, FloatArray, RunFacts
from blendtitan.runs.scalars import LEARNING_RATE, Scalars

Figure = dict[str, Any]
"""``data`` and ``layout``."""


def package_text(name: str) -> str:
    """A file of this package."""
    return files("blendtitan.runs.report").joinpath(name).read_text(encoding="utf-8")


STYLE: dict[str, Any] = json.loads(package_text("style.json"))
LIGHT: dict[str, str] = STYLE["light"]
DARK: dict[str, str] = STYLE["dark"]

MOST_CORPORA = sum(name.startswith("series") for name in LIGHT)
"""Most corpora to draw one by one; the others are grey and drawn together, or left out."""

_MOST_RUNS = sum(name.startswith("run") for name in LIGHT)

_MOST_ROWS = 24
_MOST_POINTS = 600
_FEW_POINTS = 60
_MOST_LABELS = 8
_WIDE = 4.0


def _corpus_color(number: int) -> str:
    return f"@series{number}" if number < MOST_CORPORA else "@others"


def _run_color(number: int) -> str:
    return f"@run{number % _MOST_RUNS}"


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
    name: str, x: Iterable[float], y: Iterable[float], *, color: str, dash: int = 0, symbol: int = 0
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": shown(name),
        "x": numbers(x),
        "y": numbers(y),
        "mode": "lines",
        "line": {"color": color, "dash": _style("dashes", dash), "width": 2},
        "marker": {"color": color, "symbol": _style("symbols", symbol), "size": 6},
    }


def metric_figure(
    runs: Sequence[RunFacts], metrics: Sequence[tuple[str, str]], y_title: str
) -> Figure | None:
    """``(metric, name in the legend)`` of all runs over their steps; None if no run logged any.

    A metric is followed by those with its name and ``/`` in front, as the learning rates of
    several optimizers are.
    """
    lines: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        own = [each for metric in metrics for each in _parts(run, *metric)]
        for m, (metric, called) in enumerate(own):
            of_run = run.name if len(own) == 1 else f"{run.name}: {called}"
            name = called if len(runs) == 1 else of_run
            style = {"color": _run_color(r), "dash": r, "symbol": 2 * m}
            line = _line(name, *thinned(run.metrics[metric]), **style)
            # Of two lines of a run, the first is pale, and the second has marks.
            marks = {"mode": "lines+markers", "marker": line["marker"] | {"size": 9}} if m else {}
            lines.append(line | marks | {"opacity": 0.6 if m < len(own) - 1 else 1})
    return _over_steps(lines, runs, y_title)


def _parts(run: RunFacts, metric: str, called: str) -> Iterator[tuple[str, str]]:
    """A metric of a run and its parts, as far as they were logged, with their names."""
    for name in run.metrics:
        if name == metric or (metric == LEARNING_RATE and name.startswith(f"{metric}/")):
            yield name, called if name == metric else name.removeprefix(f"{metric}/")


def corpus_metric_figure(
    runs: Sequence[RunFacts], prefix: str, corpora: Sequence[str], y_title: str
) -> Figure | None:
    """A metric of the first corpora: a colour for each corpus, dashes for each run."""
    lines: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        for c, corpus in enumerate(corpora[:MOST_CORPORA]):
            metric = f"{prefix}/{corpus}"
            if metric in run.metrics:
                name = corpus if len(runs) == 1 else f"{corpus} ({run.name})"
                style = {"color": _corpus_color(c), "dash": r, "symbol": c}
                lines.append(_line(name, *thinned(run.metrics[metric]), **style))
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


def epochs_figure(runs: Sequence[RunFacts], corpora: Sequence[str]) -> Figure:
    """Epochs of each corpus: so far, and by the end of the run."""
    ends: dict[str, float] = {}
    for corpus in (corpus for run in runs for corpus in run.corpora):
        ends[corpus.name] = max(ends.get(corpus.name, 0.0), corpus.epochs_at_end)
    names = sorted(ends, key=lambda name: ends[name])[-_MOST_ROWS:]
    colors = {name: _corpus_color(corpora.index(name)) for name in names}
    dots: list[dict[str, Any]] = []
    for r, run in enumerate(runs):
        of_run = "" if len(runs) == 1 else f" ({run.name})"
        own = {c.name: c for c in run.corpora}
        known = [own[name] for name in names if name in own]
        if 0 < run.reached_step < run.last_step:
            label = f"after step {run.reached_step:,}{of_run}"
            epochs = {c.name: c.epochs for c in known}
            dots += _dots(label, epochs, colors, _style("symbols", r) + "-open")
        epochs = {c.name: c.epochs_at_end for c in known}
        dots += _dots(f"at the end{of_run}", epochs, colors, _style("symbols", r))
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
        showlegend=len(dots) > 2,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis=scale | {"showgrid": True},
        yaxis=rows,
    )


def _dots(
    name: str, epochs: Mapping[str, float], colors: Mapping[str, str], symbol: str
) -> list[dict[str, Any]]:
    """Dots in the colours of their corpora, and an entry of the legend that shows their symbol."""
    common = {"type": "scatter", "mode": "markers", "name": shown(name), "legendgroup": shown(name)}
    marker = {"symbol": symbol, "size": 11}
    dots = common | {
        "x": numbers(epochs.values()),
        "y": [*map(shown, epochs)],
        "marker": marker | {"color": [colors[corpus] for corpus in epochs]},
        "showlegend": False,
        "hovertemplate": "%{y}: %{x:.4g} epochs",
    }
    return [dots, common | {"x": [None], "y": [None], "marker": marker | {"color": "@muted"}}]


def lengths_figure(run: RunFacts, corpora: Sequence[str]) -> Figure | None:
    """Histograms of document lengths, one line for each of the first corpora."""
    lines: list[dict[str, Any]] = []
    for c, name in enumerate(corpora[:MOST_CORPORA]):
        if name in run.lengths:
            own = run.lengths[name]
            middles = np.sqrt(np.maximum(own.edges[:-1], 0.5) * own.edges[1:])
            line = _line(name, middles, 100 * own.fractions, color=_corpus_color(c), symbol=c)
            lines.append(line | {"mode": "lines+markers", "hovertemplate": "%{y:.2f} %"})
    x, y = {"type": "log", "dtick": 1}, {"rangemode": "tozero"}
    axes = {"xaxis": x, "yaxis": y}
    return _figure(lines, "tokens per document", "documents, %", **axes) if lines else None


def blend_figure(curve: BlendCurve, corpora: Sequence[str], *, reached_step: int = 0) -> Figure:
    """The blend over training: stacked shares, against the configured ones as dashed lines.

    ``reached_step`` is the last trained step; 0: the run has not begun.
    """
    drawn, achieved, configured = _drawn(curve, corpora)
    asked = configured[:, curve.bin_segments]
    data = [
        _band(curve, number, name, achieved[row], asked[row])
        for row, (number, name) in enumerate(drawn)
    ]
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


def _drawn(
    curve: BlendCurve, corpora: Sequence[str]
) -> tuple[list[tuple[int, str]], FloatArray, FloatArray]:
    """Numbers and names of the first corpora and of all others together, and shares in percent."""
    numbers_of = {name: corpora.index(name) for name in curve.corpora}
    order = sorted(range(len(curve.corpora)), key=lambda row: numbers_of[curve.corpora[row]])
    names = [curve.corpora[row] for row in order]
    achieved, configured = 100 * curve.achieved[order], 100 * curve.configured[order]
    most = sum(numbers_of[name] < MOST_CORPORA for name in names)
    drawn = [(numbers_of[name], name) for name in names[:most]]
    if len(names) > most:
        label = names[-1] if len(names) == most + 1 else f"{len(names) - most:,} others"
        drawn.append((MOST_CORPORA, label))
        achieved, configured = (
            np.concatenate([shares[:most], shares[most:].sum(axis=0, keepdims=True)])
            for shares in (achieved, configured)
        )
    return drawn, achieved, configured


def _band(
    curve: BlendCurve, number: int, name: str, achieved: FloatArray, asked: FloatArray
) -> dict[str, Any]:
    color = _corpus_color(number)
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
        label = f"{'changed on resume' if is_phase else 'segment'} after step {step:,.6g}"
        yield float(step), label if is_few else ""
