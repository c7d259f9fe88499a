"""What a validation reads."""

import pytest

from blendtitan import BlendedDataset, build_datasets
from blendtitan.dataset.fixed import FixedSamples, fixed_samples
from tests.conftest import WriteBlend


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
        FixedSamples(None, 20, 5),
        FixedSamples("a", 20, 5),
        FixedSamples("b", 12, 3),
    ]


def test_without_a_limit_they_are_one_pass(dataset: BlendedDataset) -> None:
    assert fixed_samples(dataset, limit=None, samples_per_step=8) == [
        FixedSamples(None, 61, 8),
        FixedSamples("a", 49, 7),
        FixedSamples("b", 12, 2),
    ]


@pytest.mark.parametrize("samples_per_step", [1, 2, 3, 64])
def test_the_number_of_ranks_changes_steps_but_not_samples(
    dataset: BlendedDataset, samples_per_step: int
) -> None:
    found = fixed_samples(dataset, limit=20, samples_per_step=samples_per_step)

    assert [fixed.num_samples for fixed in found] == [20, 20, 12]
    for fixed in found:
        assert (fixed.steps - 1) * samples_per_step < fixed.num_samples
        assert fixed.steps * samples_per_step >= fixed.num_samples
