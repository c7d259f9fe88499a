"""Runs to report: one that has not begun, and one that was trained, resumed and changed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from blendtitan import SegmentConfig
from blendtitan.runs.open import read_run
from tests.runs.conftest import WriteRun
from tests.runs.test_explain import trained
from tests.runs.test_scalars import write_start

CORPORA = {"web": (0.6, [900, 700]), "code": (0.3, [450]), "books": (0.1, [300, 200])}

TrainedRun = Callable[..., Path]


@pytest.fixture
def trained_run(write_run: WriteRun, tmp_path: Path) -> TrainedRun:
    """``trained_run("a")`` makes a folder: 10 steps of 4 samples, then 10 with more of the web.

    The last of 40 steps is not reached. Its losses fall from 4, those of corpora likewise. Each
    step took a minute.
    """

    def make(name: str, *, of_loss: float = 4.0, mfu: float = 40.0) -> Path:
        folder = tmp_path / name
        path = write_run(
            CORPORA,
            job={"description": "a small run"},
            model={"name": "llama3", "flavor": "debugmodel"},
            training={"steps": 40, "global_batch_size": 4},
        )
        config = read_run(path).blend
        more = dataclasses.replace(
            config, segments=(SegmentConfig(first_slot=40, shares={"web": 1.8}),)
        )
        trained(folder / "checkpoint", [config, more], steps=10)
        (folder / "config.toml").write_text(path.read_text())
        for number, first in enumerate((1, 11)):
            steps = range(first, first + 10)
            metrics = {
                "loss_metrics/global_avg_loss": 1.0,
                **{f"loss_metrics/loss/{corpus}": 1.1 for corpus in CORPORA},
                **{f"validation_metrics/loss/{corpus}": 1.2 for corpus in CORPORA},
                "validation_metrics/loss": 1.15,
            }
            falling = {
                metric: [(step, of_loss * factor / step**0.1) for step in steps]
                for metric, factor in metrics.items()
            }
            constant = {
                "data/wait_seconds": 0.25,
                "data/samples_per_second": 4.0,
                "grad_norm": 1.5,
                "lr/AdamW": 2e-3,
                "throughput(tps)": 30.0,
                "mfu(%)": mfu,
            }
            timing = {name: [(step, value) for step in steps] for name, value in constant.items()}
            write_start(folder, number, **falling, **timing)
        return folder

    return make
