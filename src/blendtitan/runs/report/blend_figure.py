"""The picture of a blend: stacked shares over the steps of a run, against what was asked for."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from blendtitan.runs.report.blend_curve import BlendCurve, FloatArray
from blendtitan.runs.report.colors import PATTERNS, series
from blendtitan.runs.report.figures import (
    MOST_CORPORA,
    OTHERS,
    Figure,
    figure,
    numbers,
    segment_marks,
    shown,
)

_MOST_LABELS = 8
_WIDE = 4.0


def blend_figure(curve: BlendCurve, *, reached_step: int = 0) -> Figure:
    """The blend over training.

    Args:
        curve: Of the run.
        reached_step: Where the run stands; 0: it has not begun.
    """
    names, achieved, configured = _drawn(curve)
    data = [
        _band(curve, c, name, achieved[c], configured[c], is_others=c >= MOST_CORPORA)
        for c, name in enumerate(names)
    ]
    data += _boundaries(curve, configured)
    marks = list(_marks(curve))
    if 0 < reached_step < curve.bin_steps[-1]:
        marks.append((float(reached_step), "trained up to here"))
    layout = segment_marks([step for step, _ in marks], [label for _, label in marks])
    return figure(
        data,
        "step",
        "share of the samples, %",
        **layout,
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
    curve: BlendCurve,
    number: int,
    name: str,
    achieved: FloatArray,
    configured: FloatArray,
    *,
    is_others: bool,
) -> dict[str, Any]:
    color = "@others" if is_others else series(number)
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
            "shape": PATTERNS[number % len(PATTERNS)],
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
    for step, is_chapter in zip(curve.segment_steps[1:], curve.is_chapter[1:], strict=True):
        label = f"{'changed on resume' if is_chapter else 'segment'} after {step:,.6g}"
        yield float(step), label if is_few else ""
