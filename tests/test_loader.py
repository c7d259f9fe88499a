"""The loader: every sample delivered once, in order, whatever the ranks and threads."""

import gc
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets
from blendtitan.errors import ConfigError, CorruptShardError, EmptySplitError, MissingShardError
from blendtitan.loader import Batch
from tests.conftest import EOD, WriteBlend, WriteShard, wait_until

CORPORA = {"web": (0.6, [700, 500]), "code": (0.3, [350]), "books": (0.1, [240, 190])}


@pytest.fixture
def config(write_blend: WriteBlend) -> BlendConfig:
    return write_blend(CORPORA, seq_length=8)


@pytest.fixture
def dataset(config: BlendConfig) -> BlendedDataset:
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def rows(batch: Batch) -> list[tuple[int, ...]]:
    tokens = torch.cat([batch.input_ids, batch.labels[:, -1:]], dim=1)
    return [tuple(row) for row in tokens.tolist()]


def samples(dataset: BlendedDataset, slots: range) -> list[tuple[int, ...]]:
    plan = dataset.plan(np.array(slots))
    return [tuple(row) for row in dataset.read(plan, 0, len(slots)).tolist()]


@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_batches_are_consecutive_slots_for_any_number_of_threads(
    dataset: BlendedDataset, num_workers: int, prefetch: int
) -> None:
    loader = DataLoader(dataset, 4, num_workers=num_workers, prefetch=prefetch)
    seen = [row for batch in islice(loader, 300) for row in rows(batch)]

    assert seen == samples(dataset, range(1200))
    assert loader.consumed_samples == 1200


@pytest.mark.parametrize("dp_world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_step_is_the_same_set_of_samples_on_any_number_of_ranks(
    dataset: BlendedDataset, dp_world_size: int, num_workers: int
) -> None:
    """Global batches of 48 samples; ranks accumulate as many micro batches as it takes."""
    loaders = [
        DataLoader(dataset, 2, dp_rank=rank, dp_world_size=dp_world_size, num_workers=num_workers)
        for rank in range(dp_world_size)
    ]
    streams = [iter(loader) for loader in loaders]
    for step in range(20):
        seen = []
        for _ in range(48 // (2 * dp_world_size)):
            for stream in streams:
                seen += rows(next(stream))

        assert sorted(seen) == sorted(samples(dataset, range(48 * step, 48 * step + 48)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stops", [[1], [7, 300], [0, 5, 5, 64]])
def test_an_interrupted_stream_continues_where_it_stopped(
    config: BlendConfig, dataset: BlendedDataset, num_workers: int, stops: list[int]
) -> None:
    """Batches that were read ahead but not delivered are delivered after the resume."""
    seen: list[tuple[int, ...]] = []
    state = DataLoader(dataset, 4).state_dict()
    for stop in [*stops, 10]:
        fresh = build_datasets(config).train
        loader = DataLoader(fresh, 4, num_workers=num_workers)
        loader.load_state_dict(state)
        for batch in islice(loader, stop):
            seen += rows(batch)
        state = loader.state_dict()

    assert seen == samples(dataset, range(4 * (sum(stops) + 10)))


def test_resumed_on_another_number_of_ranks_no_sample_is_lost_or_seen_twice(
    dataset: BlendedDataset,
) -> None:
    seen: list[tuple[int, ...]] = []
    state = DataLoader(dataset, 6).state_dict()
    for dp_world_size, micro_batch in ((1, 6), (3, 2), (2, 3), (6, 1)):
        streams = []
        for rank in range(dp_world_size):
            loader = DataLoader(dataset, micro_batch, dp_rank=rank, dp_world_size=dp_world_size)
            loader.load_state_dict(state)
            streams.append((loader, iter(loader)))
        for _ in range(11):
            for _, stream in streams:
                seen += rows(next(stream))
        (state,) = {tuple(loader.state_dict().items()) for loader, _ in streams}
        state = dict(state)

    assert seen == samples(dataset, range(6 * 44))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_moving_the_loader_moves_an_iterator_in_use(
    dataset: BlendedDataset, num_workers: int
) -> None:
    """Also what was already read ahead is dropped."""
    loader = DataLoader(dataset, 4, num_workers=num_workers)
    stream = iter(loader)
    next(stream)
    loader.set_consumed_by_global_step(50, 12)

    assert rows(next(stream)) == samples(dataset, range(600, 604))


def test_tensors_are_int64_contiguous_and_shaped(dataset: BlendedDataset) -> None:
    batch = next(iter(DataLoader(dataset, 3)))

    for tensor, shape in ((batch.input_ids, (3, 8)), (batch.labels, (3, 8)),
                          (batch.corpus_ids, (3,))):  # fmt: skip
        assert tensor.dtype == torch.int64
        assert tensor.shape == shape
        assert tensor.is_contiguous()
    assert [dataset.corpora[i] for i in batch.corpus_ids] == [dataset[i].corpus for i in range(3)]
    assert batch.positions is None
    assert batch.attention_mask is None


def test_a_fixed_stream_has_whole_batches_and_starts_over_at_each_use(
    dataset: BlendedDataset,
) -> None:
    """Every rank stops after the same number of batches, whatever the length."""
    for rank in (0, 1):
        loader = DataLoader(dataset, 4, dp_rank=rank, dp_world_size=2, num_samples=17)
        first, second = ([rows(batch) for batch in loader] for _ in range(2))

        assert len(first) == 3
        assert first == second
        assert first[0] == samples(dataset, range(4 * rank, 4 * rank + 4))


def test_an_error_in_a_thread_surfaces_with_slot_corpus_shard_and_offset(
    config: BlendConfig, dataset: BlendedDataset
) -> None:
    loader = DataLoader(dataset, 4, num_workers=2)
    first = dataset[0]
    shard = first.shard
    with open(f"{shard}.bin", "r+b") as file:
        file.truncate(10)

    with pytest.raises(CorruptShardError, match="was truncated or replaced") as caught:
        list(islice(loader, 20))
    note = caught.value.__notes__[0]
    assert f"while reading slot 0 of train: corpus {first.corpus!r}, shard {shard}," in note
    assert f"from token {8 * first.window} of its train part" in note


def test_after_an_error_no_sample_is_skipped(dataset: BlendedDataset) -> None:
    """The stream never ends, so that an error that is caught is not taken for its end."""
    stream = iter(DataLoader(dataset, 4, num_workers=2))
    first = dataset[0]
    bin_path = Path(f"{first.shard}.bin")
    dataset.rows.files.reopen()
    moved = bin_path.rename(bin_path.with_suffix(".away"))
    with pytest.raises(MissingShardError):
        next(stream)
    moved.rename(bin_path)

    assert rows(next(stream)) == samples(dataset, range(4))


def reads_of(loader: DataLoader) -> list[tuple[int, str]]:
    """What is read from now on, and by which thread."""
    read: list[tuple[int, str]] = []
    batch_at = loader.batch_at

    def noted(at: int) -> Batch:
        read.append((at, threading.current_thread().name))
        return batch_at(at)

    loader.batch_at = noted
    return read


def test_so_many_batches_are_read_ahead_and_no_more(dataset: BlendedDataset) -> None:
    loader = DataLoader(dataset, 4, num_workers=2, prefetch=3)
    read = reads_of(loader)
    stream = iter(loader)
    next(stream)
    wait_until(lambda: len(read) == 4)
    del stream

    assert sorted(at for at, _ in read) == [0, 4, 8, 12]


@pytest.mark.parametrize(("num_workers", "ahead"), [(1, 2), (2, 2), (5, 5)])
def test_one_batch_per_thread_is_read_ahead_and_at_least_two(
    dataset: BlendedDataset, num_workers: int, ahead: int
) -> None:
    loader = DataLoader(dataset, 4, num_workers=num_workers)
    read = reads_of(loader)
    stream = iter(loader)
    next(stream)
    wait_until(lambda: len(read) == 1 + ahead)
    del stream

    assert sorted(at for at, _ in read) == [4 * number for number in range(1 + ahead)]


def test_batches_are_read_ahead_by_threads_however_little_time_they_take(
    dataset: BlendedDataset,
) -> None:
    """``num_workers`` says so; only what no thread has begun is read by the one who asks."""
    loader = DataLoader(dataset, 4, num_workers=1, prefetch=1)
    read = reads_of(loader)
    for number, _ in enumerate(islice(loader, 5), 2):
        wait_until(lambda: len(read) == number)  # noqa: B023 - called at once

    here = threading.current_thread().name
    assert [at for at, name in read if name == here] == [0]


def test_a_batch_that_no_thread_started_on_is_read_by_the_caller(dataset: BlendedDataset) -> None:
    """A thread that still reads what is no longer wanted holds nobody up."""
    loader = DataLoader(dataset, 4, num_workers=1, prefetch=1)
    read, gate = reads_of(loader), threading.Event()
    noted = loader.batch_at

    def slow_at_4(at: int) -> Batch:
        batch = noted(at)
        if at == 4:
            gate.wait(60)
        return batch

    loader.batch_at = slow_at_4
    stream = iter(loader)
    next(stream)
    wait_until(lambda: len(read) == 2)
    loader.consumed_samples = 40
    seen = [rows(next(stream)), rows(next(stream))]
    gate.set()

    assert seen == [samples(dataset, range(at, at + 4)) for at in (40, 44)]
    assert {name for at, name in read if at in (40, 44)} == {threading.current_thread().name}


def test_a_finished_stream_continues_when_its_loader_is_moved_back(
    dataset: BlendedDataset,
) -> None:
    loader = DataLoader(dataset, 4, num_workers=2, prefetch=2, num_samples=12)
    stream = iter(loader)
    once = [rows(batch) for batch in stream]
    loader.consumed_samples = 4

    assert [rows(batch) for batch in stream] == once[1:]
    assert not list(stream)


def test_a_stream_can_be_forgotten_while_its_loader_plans(dataset: BlendedDataset) -> None:
    """Garbage is collected at any time, by any thread: nothing may wait for a reading thread."""
    loader = DataLoader(dataset, 4, num_workers=1, prefetch=1)
    stream = iter(loader)
    with loader._planning:
        # Nothing was planned yet, so the thread waits for this block to end.
        stream._running_threads().submit(loader.batch_at, 4)  # pyright: ignore
        del stream
        gc.collect()


def test_a_loader_moved_to_the_middle_of_a_batch_reads_from_there(
    dataset: BlendedDataset,
) -> None:
    """As after a change of the micro batch or of the ranks."""
    loader = DataLoader(dataset, 4)
    stream = iter(loader)
    next(stream)
    loader.set_consumed_by_global_step(1, 7)

    assert rows(next(stream)) == samples(dataset, range(7, 11))


def test_no_thread_outlives_an_iterator(dataset: BlendedDataset) -> None:
    stream = iter(DataLoader(dataset, 4, num_workers=3))
    next(stream)
    during = [t for t in threading.enumerate() if t.name.startswith("blendtitan-read")]
    del stream

    assert during
    wait_until(lambda: not any(thread.is_alive() for thread in during))


def documents_apart(write_blend: WriteBlend, **settings: bool) -> Batch:
    config = write_blend(CORPORA, seq_length=24, provide_attention_mask=True, **settings)
    return next(iter(DataLoader(build_datasets(config).train, 4)))


def test_positions_restart_after_each_eod(write_blend: WriteBlend) -> None:
    batch = documents_apart(write_blend)
    assert batch.positions is not None
    for tokens, positions in zip(batch.input_ids.tolist(), batch.positions.tolist(), strict=True):
        expected, place = [], 0
        for token in tokens:
            expected.append(place)
            place = 0 if token == EOD else place + 1

        assert positions == expected


def test_the_mask_lets_a_token_attend_to_its_own_document_only(write_blend: WriteBlend) -> None:
    batch = documents_apart(write_blend)
    assert batch.attention_mask is not None
    assert batch.attention_mask.shape == (4, 1, 24, 24)
    for tokens, mask in zip(batch.input_ids.tolist(), batch.attention_mask[:, 0], strict=True):
        document = np.cumsum([0, *(token == EOD for token in tokens[:-1])])
        for q in range(24):
            for k in range(24):
                assert bool(mask[q, k]) == (k <= q and document[q] == document[k])


@pytest.mark.parametrize("append_eod", [True, False])
def test_a_document_that_begins_with_eod_sees_it_at_position_0(
    write_shard: WriteShard, tmp_path: Path, append_eod: bool
) -> None:
    """BOS and EOD are one token: what begins a document is not the end of the one before."""
    write_shard("web", [[EOD, 10, 11], [EOD, 12, 13]])
    (tmp_path / "list").write_text("1 web")
    config = BlendConfig(
        data_file_list=tmp_path / "list", eod_token_id=EOD, split="1", append_eod=append_eod,
        seq_length=7 if append_eod else 5, provide_attention_mask=True, eod_mask_loss=True,
    )  # fmt: skip
    batch = next(iter(DataLoader(build_datasets(config).train, 1)))
    assert batch.positions is not None
    assert batch.attention_mask is not None

    tokens, positions = batch.input_ids[0].tolist(), batch.positions[0].tolist()
    if append_eod:
        assert tokens == [EOD, 10, 11, EOD, EOD, 12, 13]
        assert positions == [0, 1, 2, 3, 0, 1, 2]
        assert batch.labels[0].tolist() == [10, 11, EOD, -100, 12, 13, EOD]
    else:
        assert tokens == [EOD, 10, 11, EOD, 12]
        assert positions == [0, 1, 2, 0, 1]
        assert batch.labels[0].tolist() == [10, 11, -100, 12, 13]
    seen = batch.attention_mask[0, 0].sum(dim=1).tolist()
    assert seen == [position + 1 for position in positions]


def test_positions_without_intra_document_masking_never_restart(dataset: BlendedDataset) -> None:
    batch = next(iter(DataLoader(dataset, 2, positions=True)))

    assert batch.positions is not None
    assert batch.positions.tolist() == [list(range(8))] * 2
    assert batch.attention_mask is None


def test_labels_across_a_documents_end_are_masked_when_asked(write_blend: WriteBlend) -> None:
    batch = documents_apart(write_blend, eod_mask_loss=True)
    masked = batch.labels == -100

    assert torch.equal(masked, batch.input_ids == EOD)
    assert masked.any()


@pytest.mark.parametrize("dp_world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(("micro_batch", "batches_per_step"), [(4, 1), (1, 4), (3, 2)])
def test_a_fixed_stream_counts_every_sample_once_on_any_number_of_ranks(
    dataset: BlendedDataset, dp_world_size: int, micro_batch: int, batches_per_step: int
) -> None:
    """Every rank has as many batches, of whole steps; what fills them up has no labels."""
    num_batches, counted = set(), []
    for rank in range(dp_world_size):
        batches = list(
            DataLoader(
                dataset,
                micro_batch,
                dp_rank=rank,
                dp_world_size=dp_world_size,
                num_samples=17,
                batches_per_step=batches_per_step,
            )
        )
        num_batches.add(len(batches))
        for batch in batches:
            has_labels = (batch.labels != -100).any(dim=1)
            assert torch.equal(has_labels, (batch.labels != -100).all(dim=1))
            counted += [row for row, real in zip(rows(batch), has_labels, strict=True) if real]

    assert num_batches == {
        -(-17 // (micro_batch * batches_per_step * dp_world_size)) * batches_per_step
    }
    assert sorted(counted) == sorted(samples(dataset, range(17)))


def test_requesting_an_empty_split_is_an_error(write_blend: WriteBlend) -> None:
    datasets = build_datasets(write_blend(CORPORA, seq_length=8, split="1"))

    with pytest.raises(EmptySplitError, match="the split to load is empty"):
        DataLoader(datasets.valid, 4)


@pytest.mark.parametrize(
    "settings",
    [{"micro_batch_size": 0}, {"micro_batch_size": None}, {"prefetch": -1}, {"num_samples": 0},
     {"batches_per_step": 0}, {"dp_rank": 2, "dp_world_size": 2}, {"num_workers": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(dataset: BlendedDataset, settings: dict) -> None:
    with pytest.raises(ConfigError, match="expected"):
        DataLoader(dataset, **({"micro_batch_size": 4} | settings))
