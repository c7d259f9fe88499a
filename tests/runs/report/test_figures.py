"""Figures: what plotly knows, and numbers that can be traced to the run."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from blendtitan.runs.report.facts import by_share, gather_run, gather_runs
from blendtitan.runs.report.figures import (
    DARK,
    LIGHT,
    MOST_CORPORA,
    blend_figure,
    corpus_metric_figure,
    epochs_figure,
    lengths_figure,
    metric_figure,
    numbers,
    thinned,
)
from blendtitan.runs.report.page import page_html, report_page
from blendtitan.runs.scalars import Scalars
from tests.runs.conftest import WriteRun
from tests.runs.report.conftest import CORPORA, TrainedRun

LOSS = "loss_metrics/global_avg_loss"


def colored(value: Any) -> Any:
    """A figure with the colours of a theme in place of their names."""
    if isinstance(value, dict):
        return {key: colored(each) for key, each in value.items()}
    if isinstance(value, list):
        return [colored(each) for each in value]
    return LIGHT[value[1:]] if isinstance(value, str) and value.startswith("@") else value


def test_plotly_knows_every_property_of_every_figure(trained_run: TrainedRun) -> None:
    html = page_html(report_page(gather_runs([trained_run("a"), trained_run("b")])))
    values = re.search(r'<script type="application/json" id="values">(.*?)</script>', html)
    assert values is not None
    figures = json.loads(values[1])["figures"]

    assert len(figures) == html.count('class="plot"') == 13
    for figure in figures:
        go.Figure(colored(figure))


def test_both_themes_have_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys()


def test_bands_sum_to_all_samples_and_show_the_configured_shares(trained_run: TrainedRun) -> None:
    facts = gather_run(trained_run("run"), name="run")
    data = blend_figure(facts.curve, facts.curve.corpora, reached_step=20)["data"]
    bands = [trace for trace in data if trace.get("stackgroup")]
    web = next(trace for trace in bands if trace["name"] == "web")

    assert np.sum([trace["y"] for trace in bands], axis=0) == pytest.approx(100, abs=0.01)
    assert web["customdata"][0] == pytest.approx(60)
    assert web["customdata"][-1] == pytest.approx(100 * 1.8 / 2.2, abs=0.001)


def test_segments_and_the_last_step_trained_are_marked(trained_run: TrainedRun) -> None:
    facts = gather_run(trained_run("run"), name="run")
    layout = blend_figure(facts.curve, facts.curve.corpora, reached_step=20)["layout"]

    assert [shape["x0"] for shape in layout["shapes"]] == [10, 20]
    labels = [annotation["text"] for annotation in layout["annotations"]]
    assert labels == ["changed on resume after step 10", "trained up to here"]


def test_beyond_the_largest_corpora_all_others_are_one_band(write_run: WriteRun) -> None:
    many = {f"c{i:02d}": (1 + 1 / (1 + i), [30]) for i in range(50)}
    facts = gather_run(write_run(many, training={"steps": 400}), name="run")
    bands = [
        t for t in blend_figure(facts.curve, facts.curve.corpora)["data"] if t.get("stackgroup")
    ]

    assert [band["name"] for band in bands][-1] == f"{50 - MOST_CORPORA} others"
    assert len(bands) == MOST_CORPORA + 1
    assert np.sum([band["y"] for band in bands], axis=0) == pytest.approx(100, abs=0.01)


def colors_of_corpora(figure: Any) -> set[tuple[str, str]]:
    """Names and colours in a figure; in a comparison, the run follows the name."""
    found: set[tuple[str, str]] = set()
    for trace in figure["data"]:
        color = trace.get("fillcolor", trace.get("marker", {}).get("color"))
        if isinstance(color, list):
            found |= {*zip(trace["y"], color, strict=True)}
        elif color is not None:
            found.add((trace["name"].split(" (")[0], color))
    return found


def test_a_corpus_has_one_colour_in_every_figure_and_run(write_run: WriteRun) -> None:
    """Also where there are more corpora than colours, and runs with other shares."""
    names = [f"c{i:02d}" for i in range(MOST_CORPORA + 3)]
    metrics = {f"loss_metrics/loss/{name}": Scalars(np.arange(3), np.ones(3)) for name in names}
    runs = [
        replace(gather_run(write_run(blend), name=name), metrics=metrics)
        for name, blend in (
            ("a", {name: (1.0 + i, [50]) for i, name in enumerate(names)}),
            ("b", {name: (30.0 - 3 * i, [50]) for i, name in enumerate(names)}),
        )
    ]
    corpora = by_share(run.curve for run in runs)
    figures = [
        *(blend_figure(run.curve, corpora) for run in runs),
        *(lengths_figure(run, corpora) for run in runs),
        corpus_metric_figure(runs, "loss_metrics/loss", corpora, "loss"),
        epochs_figure(runs, corpora),
    ]
    legends = {"at the end", f"{len(names) - MOST_CORPORA} others", "configured"}
    colors = {(c, k) for figure in figures for c, k in colors_of_corpora(figure)}
    of_corpora = {(corpus, color) for corpus, color in colors if corpus not in legends}

    assert [run.curve.corpora[0] for run in runs] == [names[-1], names[0]]
    assert len(of_corpora) == len(names)
    assert {corpus for corpus, _ in of_corpora} == set(names)
    assert {corpus for corpus, color in of_corpora if color == "@others"} == {*corpora[-3:]}
    assert (f"{len(names) - MOST_CORPORA} others", "@others") in colors


def test_runs_and_corpora_have_no_colour_in_common(trained_run: TrainedRun) -> None:
    runs = gather_runs([trained_run("a"), trained_run("b")])
    figure = metric_figure(runs, [(LOSS, "training"), ("validation_metrics/loss", "valid")], "loss")
    assert figure is not None

    assert [trace["line"]["color"] for trace in figure["data"]] == ["@run0"] * 2 + ["@run1"] * 2
    for theme in (LIGHT, DARK):
        of_runs = {color for name, color in theme.items() if name.startswith("run")}
        assert not of_runs & {color for name, color in theme.items() if not name.startswith("run")}


def test_the_learning_rate_of_every_optimizer_is_drawn(trained_run: TrainedRun) -> None:
    """TorchTitan 0.2 logs "lr", and 0.3 the name of the optimizer after it."""
    run = gather_run(trained_run("run"), name="run")
    rates = run.metrics["lr/AdamW"]
    several = replace(run, metrics={"lr/AdamW": rates, "lr/Muon": rates, "lr_other": rates})
    for facts, expected in (
        (run, ["AdamW"]),
        (several, ["AdamW", "Muon"]),
        (replace(run, metrics={"lr": rates}), ["learning rate"]),
    ):
        figure = metric_figure([facts], [("lr", "learning rate")], "learning rate")
        assert figure is not None
        assert [trace["name"] for trace in figure["data"]] == expected


def test_losses_equal_the_logged_values(trained_run: TrainedRun) -> None:
    runs = gather_runs([trained_run("a", of_loss=4.0), trained_run("b", of_loss=5.0)])
    of_blend = metric_figure(runs, [(LOSS, "training")], "loss")
    of_corpora = corpus_metric_figure(runs, "loss_metrics/loss", list(CORPORA), "loss")
    assert of_blend is not None
    assert of_corpora is not None

    assert [(trace["name"], trace["y"][0]) for trace in of_blend["data"]] == [("a", 4), ("b", 5)]
    assert [trace["name"] for trace in of_corpora["data"]] == [
        f"{corpus} ({run})" for run in "ab" for corpus in CORPORA
    ]
    assert len({trace["line"]["dash"] for trace in of_corpora["data"][:3]}) == 1


def test_metrics_that_were_not_logged_have_no_figure(write_run: WriteRun) -> None:
    facts = gather_run(write_run(CORPORA), name="run")

    assert metric_figure([facts], [(LOSS, "training")], "loss") is None


def test_many_points_become_means_of_neighbours() -> None:
    """A run of a million steps is a page of kilobytes, not of megabytes."""
    steps = np.arange(1, 1_000_001)
    thin_steps, values = thinned(Scalars(steps, steps * 2.0))

    assert len(thin_steps) == 600
    assert values == pytest.approx(2 * thin_steps)
    assert thin_steps.mean() == pytest.approx(steps.mean(), rel=1e-3)


def test_a_loss_that_is_not_a_number_is_a_gap() -> None:
    """JSON has no NaN."""
    assert numbers([1.23456789, float("nan"), float("inf")]) == [1.23457, None, None]
