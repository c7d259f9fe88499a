"""A split as Grain's data source: the same samples in the same order, with any of its loaders."""

import pickle
from dataclasses import replace
from pathlib import Path

import grain.python as grain  # pyright: ignore[reportMissingImports]
import numpy as np
import pytest

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.grain_source import BlendSource
from tests.small_corpora import EOD, write_corpora

SEQ_LEN = 32


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BlendConfig:
    """Two corpora with intra-document masking."""
    file_list = write_corpora(tmp_path_factory.mktemp("data"))
    return BlendConfig(
        data_file_list=file_list,
        seq_length=SEQ_LEN,
        eod_token_id=EOD,
        split="90,10,0",
        provide_attention_mask=True,
        eod_mask_loss=True,
    )


def test_ranks_of_grain_read_the_batches_of_our_ranks(config: BlendConfig) -> None:
    """The recipe of the documentation: batches first, then every ``dp_world_size``-th."""
    batches = grain.MapDataset.source(BlendSource(config, num_samples=24)).batch(3)
    for rank in range(2):
        ours = iter(DataLoader(build_datasets(config).train, 3, dp_rank=rank, dp_world_size=2))
        for batch in batches[rank::2]:
            expected = next(ours)

            assert np.array_equal(batch.input_ids, expected.input_ids.numpy())
            assert np.array_equal(batch.labels, expected.labels.numpy())
            assert expected.positions is not None
            assert np.array_equal(batch.positions, expected.positions.numpy())
            assert np.array_equal(batch.corpus_id, expected.corpus_ids.numpy())


def test_an_iterator_of_grain_continues_from_its_state(config: BlendConfig) -> None:
    iterator = iter(grain.MapDataset.source(BlendSource(config)).to_iter_dataset())
    for _ in range(5):
        next(iterator)
    again = iter(grain.MapDataset.source(BlendSource(config)).to_iter_dataset())
    again.set_state(iterator.get_state())

    for _ in range(5):
        assert np.array_equal(next(again).labels, next(iterator).labels)


@pytest.mark.slow
def test_worker_processes_of_grain_read_the_same_samples(config: BlendConfig) -> None:
    """Grain pickles the source into each of them."""
    source = BlendSource(config, num_samples=12)
    sampler = grain.SequentialSampler(num_records=12, shard_options=grain.NoSharding())
    loader = grain.DataLoader(data_source=source, sampler=sampler, worker_count=2)

    found = sorted(row.labels.tolist() for row in loader)
    assert found == sorted(source[i].labels.tolist() for i in range(12))


def test_a_pickled_source_needs_no_file_list(config: BlendConfig, tmp_path: Path) -> None:
    source = BlendSource(config, num_samples=7)
    content = pickle.dumps(source)
    moved = Path(config.data_file_list).rename(tmp_path / "moved")
    again = pickle.loads(content)
    moved.rename(config.data_file_list)

    assert len(again) == 7
    assert repr(again) == repr(source)
    assert np.array_equal(again[3].input_ids, source[3].input_ids)


def test_it_is_a_sequence(config: BlendConfig) -> None:
    source = BlendSource(config, num_samples=5)

    assert np.array_equal(source[-1].labels, source[4].labels)
    assert source[np.int64(2)].input_ids.shape == (SEQ_LEN,)
    assert source.corpora == ("code", "web")
    for index in (5, -6):
        with pytest.raises(IndexError, match=rf"sample {index}, expected 0 to 4"):
            source[index]


def test_without_a_length_it_is_one_pass_over_the_split(config: BlendConfig) -> None:
    train = build_datasets(config).train

    assert train is not None
    assert len(BlendSource(config)) == train.num_windows


def test_its_text_tells_other_orders_apart(config: BlendConfig) -> None:
    """Grain saves the text with a position, to tell whether it belongs to the data."""
    shown = repr(BlendSource(config, num_samples=9))
    other = replace(config, seed=7)

    assert "train: 9 samples of 32 tokens" in shown
    assert shown == repr(BlendSource(config, num_samples=9))
    assert shown != repr(BlendSource(other, num_samples=9))


def test_bad_requests_are_errors(config: BlendConfig) -> None:
    with pytest.raises(
        ConfigError, match="num_samples is 0, expected a whole number of at least 1"
    ):
        BlendSource(config, num_samples=0)
    with pytest.raises(EmptySplitError, match="no corpus has documents in the test split"):
        BlendSource(config, split="test")
