"""What a validation reads."""

from collections import Counter
from itertools import chain

import pytest

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.dataset.fixed import FixedSamples, blend_loss, fixed_samples
from blendtitan.dataset.fixed_data import FixedData, losses_of
from tests.conftest import EOD, WriteBlend, WriteShard


@pytest.fixture
def dataset(write_blend: WriteBlend) -> BlendedDataset:
    """49 windows of a, 12 of b."""
    corpora = {"a": (0.5, [300, 100]), "b": (0.5, [100])}
    dataset = build_datasets(write_blend(corpora, seq_length=8, split="1")).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def test_the_blend_and_each_corpus_have_so_many_samples_or_all_there_are(
    dataset: BlendedDataset,
) -> None:
    assert fixed_samples(dataset, limit=20, samples_per_step=4) == [
        FixedSamples(None, 20, 5, False),
        FixedSamples("a", 20, 5, False),
        FixedSamples("b", 12, 3, True),
    ]


@pytest.mark.parametrize("limit", [None, 61, 1000])
def test_without_a_limit_they_are_all_windows(dataset: BlendedDataset, limit: int | None) -> None:
    assert fixed_samples(dataset, limit=limit, samples_per_step=8) == [
        FixedSamples(None, 61, 8, True),
        FixedSamples("a", 49, 7, True),
        FixedSamples("b", 12, 2, True),
    ]


@pytest.mark.parametrize("corpus", [None, "a", "b"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("blended", [True, False])
def test_all_windows_are_each_read_once_on_any_number_of_ranks(
    write_blend: WriteBlend, corpus: str | None, ranks: int, blended: bool
) -> None:
    """Weights that are not in proportion to sizes would repeat some and miss others."""
    corpora = {"a": (0.9, [300, 100, 90]), "b": (0.1, [100, 200])}
    config = write_blend(corpora, seq_length=8, split="1", blend_sample_in_corpus=blended)
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    whole = (dataset if corpus is None else dataset.only(corpus)).once()
    loaders = [
        DataLoader(whole, 4, dp_rank=rank, dp_world_size=ranks, num_samples=whole.num_windows)
        for rank in range(ranks)
    ]
    batches = [list(loader) for loader in loaders]
    read = [
        tuple(row.tolist())
        for batch in chain.from_iterable(batches)
        for row, labels in zip(batch.input_ids, batch.labels, strict=True)
        if (labels != IGNORE_INDEX).any()
    ]
    windows = [whole[slot] for slot in range(whole.num_windows)]

    assert len({len(of_rank) for of_rank in batches}) == 1
    assert Counter(read) == Counter(tuple(each.input_ids.tolist()) for each in windows)
    assert len({(each.shard, each.window, each.corpus) for each in windows}) >= (
        whole.num_windows if blended else 1
    )
    assert all(each.epoch == 0 for each in windows)
    draws = Counter((each.corpus, each.draw) for each in windows)
    assert max(draws.values()) == 1


def test_every_token_of_the_windows_is_predicted_once(write_shard: WriteShard) -> None:
    """One row of 81 numbered tokens has 10 windows of 8 and nothing left over."""
    prefix = write_shard("all", [[*range(3, 83), EOD]])
    prefix.with_name("list").write_text(f"1 {prefix} all")
    config = BlendConfig(
        data_file_list=prefix.with_name("list"), seq_length=8, eod_token_id=EOD, split="1"
    )
    dataset = build_datasets(config).train
    assert dataset is not None
    whole = dataset.once()
    labels = [int(i) for slot in range(whole.num_windows) for i in whole[slot].labels]

    assert sorted(labels) == sorted([*range(4, 83), EOD])


def test_the_loss_of_the_whole_blend_is_weighted_by_shares(write_blend: WriteBlend) -> None:
    """Not by sizes: it estimates the loss of what is trained on."""
    config = write_blend({"a": (3.0, [800]), "b": (1.0, [100])}, seq_length=8, split="1")
    dataset = build_datasets(config).train
    assert dataset is not None

    assert blend_loss(dataset, {"a": 2.0, "b": 4.0}) == 2.5
    assert blend_loss(dataset, {"b": 4.0}) == 4.0


@pytest.mark.parametrize("samples_per_step", [1, 2, 3, 64])
def test_the_number_of_ranks_changes_steps_but_not_samples(
    dataset: BlendedDataset, samples_per_step: int
) -> None:
    found = fixed_samples(dataset, limit=20, samples_per_step=samples_per_step)

    assert [fixed.num_samples for fixed in found] == [20, 20, 12]
    for fixed in found:
        assert (fixed.steps - 1) * samples_per_step < fixed.num_samples
        assert fixed.steps * samples_per_step >= fixed.num_samples


# Losses


def test_a_set_has_one_loss_and_the_blend_one_for_each_corpus(dataset: BlendedDataset) -> None:
    """A loss here is the number of samples, and that of a whole set the mean of its corpora's."""
    data = [
        FixedData.of(None, dataset, limit=20, samples_per_step=4),
        FixedData.of("drawn", dataset, limit=30, samples_per_step=4),
        FixedData.of("whole", dataset, limit=None, samples_per_step=4),
    ]
    passed: list[tuple[str | None, str | None]] = []

    def loss_of(each: FixedData, fixed: FixedSamples) -> float:
        passed.append((each.name, fixed.corpus))
        return float(fixed.num_samples)

    assert losses_of(data, loss_of) == (
        20.0,
        {"a": 20.0, "b": 12.0, "drawn": 30.0, "whole": (49 + 12) / 2},
    )
    assert passed == [
        *((None, None), (None, "a"), (None, "b")),
        ("drawn", None),
        *(("whole", "a"), ("whole", "b")),
    ]


def test_without_a_valid_split_there_are_losses_of_sets_only(dataset: BlendedDataset) -> None:
    only = FixedData.of("held out", dataset, limit=8, samples_per_step=4)

    assert losses_of([only], lambda _, __: 1.5) == (None, {"held out": 1.5})
