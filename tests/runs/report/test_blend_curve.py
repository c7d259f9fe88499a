"""The blend over training, against counting its slots."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from blendtitan.batch_schedule import BatchStage, steps_before
from blendtitan.runs.open import open_run
from blendtitan.runs.report.facts import blend_curve
from tests.runs.conftest import WriteRun
from tests.runs.report.conftest import CORPORA, TrainedRun

SEGMENTS = [
    {"from_step": 20, "shares": {"code": 0.6}},
    {"from_tokens": 8 * 8 * 50 + 8 * 3, "shares": {"books": 0}},
]


def test_bins_equal_the_counted_slots(write_run: WriteRun) -> None:
    path = write_run(CORPORA, training={"steps": 125}, blendcorpus={"segment": SEGMENTS})
    slots = open_run(path).slots
    curve = blend_curve(slots, 1000)
    windows = slots.windows(np.arange(1000))
    stops = np.cumsum(curve.bin_samples).tolist()

    assert stops[-1] == 1000
    for b, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        counts = Counter(window.corpus for window in windows[start:stop])
        found = curve.achieved[:, b] * (stop - start)
        assert found.tolist() == pytest.approx([counts[name] for name in curve.corpora])


def test_no_bin_crosses_a_segment(write_run: WriteRun) -> None:
    """Such a bin would show a share that was never configured. Segment 2 begins in step 51."""
    path = write_run(CORPORA, training={"steps": 125}, blendcorpus={"segment": SEGMENTS})
    curve = blend_curve(open_run(path).slots, 1000)

    assert curve.segment_steps.tolist() == [0, 20, 50 + 3 / 8]
    assert set(curve.segment_steps) <= set(curve.bin_steps)
    assert curve.bin_samples.min() >= 32
    assert curve.bin_steps[-1] == 125


def test_configured_shares_are_those_of_each_segment(write_run: WriteRun) -> None:
    path = write_run(CORPORA, training={"steps": 125}, blendcorpus={"segment": SEGMENTS})
    curve = blend_curve(open_run(path).slots, 1000)
    shares = dict(zip(curve.corpora, curve.configured.tolist(), strict=True))

    assert curve.corpora == ("web", "code", "books")  # by their shares of the whole run
    assert shares["web"] == pytest.approx([0.6, 0.6 / 1.3, 0.6 / 1.2])
    assert shares["code"] == pytest.approx([0.3, 0.6 / 1.3, 0.6 / 1.2])
    assert shares["books"] == pytest.approx([0.1, 0.1 / 1.3, 0])


def test_the_past_of_a_changed_run_is_that_of_its_checkpoint(trained_run: TrainedRun) -> None:
    """The file in the folder alone would not show any change."""
    folder = trained_run("run")
    curve = blend_curve(open_run(folder).slots, 160)
    web = curve.configured[curve.corpora.index("web")]

    assert curve.segment_steps.tolist() == [0, 10]
    assert curve.is_phase == (False, True)
    assert web.tolist() == pytest.approx([0.6, 1.8 / 2.2])


def test_the_originals_order_has_a_curve_too(write_run: WriteRun, tmp_path: Path) -> None:
    own = {"order": "blendcorpus", "data_cache_path": str(tmp_path / "cache")}
    slots = open_run(write_run(CORPORA, blendcorpus=own)).slots
    curve = blend_curve(slots, 80)
    counts = Counter(window.corpus for window in slots.windows(np.arange(80)))

    assert curve.segment_steps.tolist() == [0]
    achieved = (curve.achieved * curve.bin_samples).sum(axis=1).tolist()
    assert achieved == pytest.approx([counts[name] for name in curve.corpora])


def test_steps_of_a_run_whose_global_batch_grew() -> None:
    schedule = (
        BatchStage(global_batch_size=4),
        BatchStage(step=10, consumed_samples=40, global_batch_size=8),
    )

    assert [steps_before(schedule, slot) for slot in (0, 6, 40, 44)] == [0, 1.5, 10, 10.5]
