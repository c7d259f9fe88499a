"""Weights are proportions: multiplying all of them by one number changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets
from blendtitan.errors import ResumeError
from blendtitan.history.phases import as_recorded, same_proportions
from blendtitan.order.blend import BlendOrder, Segment
from blendtitan.state import STATE_KEY
from tests.conftest import WriteBlend

CORPORA = {"a": (0.1, [300, 100]), "b": (0.2, [350]), "c": (0.7, [500, 90, 200])}

FAR_SLOTS = np.random.default_rng(0).integers(0, 10**14, 20_000)
"""So far out that one bit of a weight decides which corpus has a slot."""


def loader(config: BlendConfig) -> DataLoader:
    return DataLoader(build_datasets(config).train, 4, num_workers=0)


def reweighted(config: BlendConfig, change: Callable[[float, str], float]) -> BlendConfig:
    """The same shards under other weights: ``change(weight, prefix)``."""
    path = Path(config.data_file_list)
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("\n".join(f"{change(float(w), p)!r} {p} {c}" for w, p, c in lines))
    return config


def trained(config: BlendConfig, batches: int = 5) -> DataLoader:
    one = loader(config)
    iterator = iter(one)
    for _ in range(batches):
        next(iterator)
    return one


@pytest.mark.parametrize("factor", [2, 3, 0.1, 1 / 3, 7e-5, 1e12, 100 / 7])
@pytest.mark.parametrize("blended", [True, False])
def test_a_run_continues_in_the_order_it_started_with(
    write_blend: WriteBlend, factor: float, blended: bool
) -> None:
    """Bit for bit: it keeps the weights that the checkpoint recorded."""
    config = write_blend(CORPORA, seq_length=8, blend_sample_in_corpus=blended)
    began = trained(config)
    resumed = loader(reweighted(config, lambda weight, _: weight * factor))
    resumed.load_state_dict(began.state_dict())

    assert np.array_equal(
        resumed.dataset.sample_ids(FAR_SLOTS), began.dataset.sample_ids(FAR_SLOTS)
    )
    assert resumed.state_dict() == began.state_dict()


def test_the_scaled_weights_alone_would_round_differently() -> None:
    """Which is why a run keeps those it began with."""
    weights = dict(zip("abcdefg", (0.1, 0.2, 0.7, 0.3, 1.1, 0.13, 0.57), strict=True))
    ours = BlendOrder.build([Segment(0, weights)])
    scaled = BlendOrder.build([Segment(0, {name: w * 3 for name, w in weights.items()})])

    assert 0 < (ours.draws(FAR_SLOTS)[0] != scaled.draws(FAR_SLOTS)[0]).sum() < len(FAR_SLOTS)


def test_segments_planned_after_a_resume_keep_the_recorded_weights(
    write_blend: WriteBlend,
) -> None:
    changes = [Segment(1000, {"a": 0.5}), Segment(5000, {"b": 0})]
    config = write_blend(CORPORA, seq_length=8)
    began, resumed = trained(config), loader(reweighted(config, lambda weight, _: weight * 3))
    for one in (began, resumed):
        one.set_segments(changes)
    resumed.load_state_dict(began.state_dict())
    resumed.set_segments(changes)

    assert isinstance(resumed.dataset, BlendedDataset)
    assert resumed.dataset.segments == began.dataset.segments
    assert resumed.state_dict() == began.state_dict()


def test_other_shares_are_refused_and_shown_as_shares(write_blend: WriteBlend) -> None:
    config = write_blend(CORPORA, seq_length=8)
    state = trained(config).state_dict()
    other = loader(reweighted(config, lambda weight, p: 10 * weight * (2 if "a_" in p else 1)))

    with pytest.raises(ResumeError) as caught:
        other.load_state_dict(state)
    assert "segments.0.shares.a: checkpoint 0.1, now 0.1818" in str(caught.value)
    assert "digest" not in str(caught.value)


def test_other_shares_within_a_corpus_are_refused_and_shown(write_blend: WriteBlend) -> None:
    config = write_blend(CORPORA, seq_length=8)
    state = trained(config).state_dict()
    swapped = {"a/a_0": 0.075, "a/a_1": 0.025}
    other = loader(reweighted(config, lambda weight, p: swapped.get(p, weight)))

    with pytest.raises(
        ResumeError, match=r"corpora\.a\.shares\.a_0 \(0\): checkpoint 0\.5, now 0\.75"
    ):
        other.load_state_dict(state)


def test_a_state_whose_digest_alone_differs_is_refused(write_blend: WriteBlend) -> None:
    """With equal weights, the digests differ for another reason."""
    one = trained(write_blend(CORPORA, seq_length=8))
    state = json.loads(one.state_dict()[STATE_KEY])
    state["corpora"]["a"]["shards_digest"] = "0" * 16

    with pytest.raises(ResumeError, match=r"corpora\.a\.shards_digest"):
        one.load_state_dict({STATE_KEY: json.dumps(state)})


def test_proportions_are_compared_up_to_rounding() -> None:
    weights = [0.1, 0.2, 0.7]

    assert same_proportions(weights, [w * 3 for w in weights])
    assert not same_proportions(weights, [0.1, 0.2, 0.7000001])
    assert not same_proportions(weights, [0.1, 0.2])


def test_only_segments_with_the_same_slot_and_shares_are_taken_as_recorded() -> None:
    recorded = [Segment(0, {"a": 1.0, "b": 2.0}), Segment(9, {"a": 1.0})]
    planned = [Segment(0, {"b": 6.0, "a": 3.0}), Segment(8, {"a": 2.0})]

    assert as_recorded(planned, recorded) == (recorded[0], planned[1])
