"""How far each corpus has been read, and that none is read too often."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendtitan import BlendedDataset, DataLoader, SegmentConfig, build_datasets
from blendtitan.dataset.progress import check_repetition, progress
from blendtitan.errors import ConfigError
from blendtitan.order.blend import Segment
from tests.conftest import WriteBlend

# 400 + 100 tokens: with half of the samples each, b is read four times as often.
CORPORA = {"a": (0.5, [300, 100]), "b": (0.5, [100])}
SEQ_LEN = 8
LONG_A = CORPORA | {"a": (0.5, [30_000])}
WITHOUT_B = SegmentConfig(first_slot=0, shares={"a": 1.0, "b": 0.0})
ACROSS = {"blend_sample_in_corpus": False}
ORIGINAL = {"order": "blendcorpus", "train_samples": 4, "eval_samples": 0}


@pytest.fixture
def dataset(write_blend: WriteBlend) -> BlendedDataset:
    dataset = build_datasets(write_blend(CORPORA, seq_length=SEQ_LEN, split="1")).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


@pytest.mark.parametrize("consumed_samples", [0, 1, 7, 100])
def test_tokens_and_shares_are_those_of_the_samples_read(
    dataset: BlendedDataset, consumed_samples: int
) -> None:
    plan = dataset.plan(np.arange(consumed_samples))
    counts = np.bincount(plan.corpora, minlength=2)
    reached = progress(dataset, consumed_samples)

    assert reached.tokens.tolist() == (counts * SEQ_LEN).tolist()
    assert reached.epochs.tolist() == (counts * SEQ_LEN / np.array([400, 100])).tolist()
    assert reached.shares.tolist() == (counts / max(1, consumed_samples)).tolist()
    assert reached.configured_shares.tolist() == [0.5, 0.5]


def test_configured_shares_follow_the_segments(dataset: BlendedDataset) -> None:
    """30 samples at 1 : 1, then 10 at 3 : 1."""
    dataset = dataset.with_changes([Segment(30, {"a": 0.75, "b": 0.25})])

    assert progress(dataset, 40).configured_shares.tolist() == [22.5 / 40, 17.5 / 40]
    assert progress(dataset, 20).configured_shares.tolist() == [0.5, 0.5]


def test_a_corpus_that_repeats_too_often_is_an_error_with_a_remedy(dataset: BlendedDataset) -> None:
    """120 samples are 480 tokens of each: 4.8 epochs of b."""
    with pytest.raises(ConfigError, match=r"'b' 4\.8 times\. .*raise blendcorpus\.max_epochs") as e:
        check_repetition(dataset, 120, 4)

    assert "'a'" not in str(e.value)
    assert "120 samples of this run (960 tokens)" in str(e.value)
    assert "max_epochs = 4 allows" in str(e.value)


def test_as_often_as_allowed_is_accepted(dataset: BlendedDataset) -> None:
    """100 samples are 4 epochs of b; the order may be up to two samples off."""
    check_repetition(dataset, 100, 4)
    check_repetition(dataset, 104, 4)


def test_without_a_limit_everything_is_accepted(dataset: BlendedDataset) -> None:
    check_repetition(dataset, 10**9, 0)


@pytest.mark.parametrize(
    ("seq_len", "settings", "max_epochs", "short"),
    [
        (400, {}, 4, None),
        (401, {}, 4, r"the train split the longest shard of 'b' has 100 tokens: each sample would"),
        (1201, {}, 4, r"the longest shard of 'a' has 300 and the longest shard of 'b' has 100"),
        (1201, ACROSS, 4, r"the text of 'b' has 100 tokens"),
        (1201, ACROSS | ORIGINAL, 4, r"shard of 'a' has 300 and the longest shard of 'b'"),
        (1201, {"segments": (WITHOUT_B,)}, 5, None),
        (300, {"segments": (WITHOUT_B,)}, 0.5, None),  # longer than half a shard: not repeated
        (301, {"segments": (WITHOUT_B,)}, 0.5, r"the longest shard of 'a' has 300 tokens"),
    ],
)
def test_a_sample_may_not_repeat_its_own_tokens_too_often(
    write_blend: WriteBlend,
    tmp_path: Path,
    seq_len: int,
    settings: dict[str, Any],
    max_epochs: float,
    short: str | None,
) -> None:
    """The same limit holds within a sample that is longer than the shard it is cut from."""
    settings = {"seq_length": seq_len, "data_cache_path": tmp_path / "cache"} | settings
    train = build_datasets(write_blend(CORPORA, split="1", **settings)).train
    assert train is not None

    check_repetition(train, 2, 0)
    with nullcontext() if short is None else pytest.raises(ConfigError, match=short):
        check_repetition(train, 2, max_epochs)


def test_longer_samples_are_compared_with_the_corpora_that_are_read_from_then_on(
    write_blend: WriteBlend,
) -> None:
    """Short samples of ``b`` were read before, and none of the long ones is of it."""
    config = write_blend(LONG_A, seq_length=SEQ_LEN, split="1", on_change="new_segment")
    before = DataLoader(build_datasets(config).train, 4)
    next(iter(before))
    longer = replace(config, seq_length=512)
    for each, expected in [
        (longer, pytest.raises(ConfigError, match="longest shard of 'b' has 100 tokens")),
        (replace(longer, segments=(replace(WITHOUT_B, first_slot=4),)), nullcontext()),
    ]:
        after = DataLoader(build_datasets(each).train, 4)
        after.load_state_dict(before.state_dict())
        with expected:
            check_repetition(after.dataset, 8, 4)


@pytest.mark.parametrize("max_epochs", [-1, float("nan")])
def test_a_limit_below_0_is_refused(dataset: BlendedDataset, max_epochs: float) -> None:
    with pytest.raises(ConfigError, match="expected a number of at least 0"):
        check_repetition(dataset, 1, max_epochs)


# One corpus alone


@pytest.mark.parametrize("blend_sample_in_corpus", [True, False])
@pytest.mark.parametrize("corpus", ["a", "b"])
def test_a_corpus_alone_has_its_own_draws(
    write_blend: WriteBlend, corpus: str, blend_sample_in_corpus: bool
) -> None:
    """Slot ``d`` of it is what the blend has as draw ``d`` of that corpus."""
    config = write_blend(
        CORPORA, seq_length=SEQ_LEN, split="1", blend_sample_in_corpus=blend_sample_in_corpus
    )
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    alone = dataset.only(corpus)
    own = [sample for sample in map(dataset.__getitem__, range(200)) if sample.corpus == corpus]

    assert alone.corpora == (corpus,)
    for sample in own:
        same = alone[sample.draw]
        assert (same.corpus, same.draw, same.shard) == (corpus, sample.draw, sample.shard)
        assert same.input_ids.tolist() == sample.input_ids.tolist()


def test_a_corpus_alone_counts_its_own_windows_and_tokens(dataset: BlendedDataset) -> None:
    """Of 300, 100 and 100 tokens: 37, 12 and 12 windows of 8."""
    a, b = dataset.only("a"), dataset.only("b")

    assert dataset.num_windows == 61
    assert (a.num_windows, b.num_windows) == (49, 12)
    assert dataset.corpus_tokens.tolist() == [400, 100]
    assert (a.corpus_tokens.tolist(), b.corpus_tokens.tolist()) == ([400], [100])
