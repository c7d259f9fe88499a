"""The metrics of corpora, by their names, and the summary of the losses."""

import errno
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torchtitan.distributed import ParallelDims

from blendtitan import BlendedDataset, build_datasets
from blendtitan.corpus_losses import RowSums
from blendtitan.corpus_progress import corpus_table, loss_metrics, progress_metrics
from blendtitan.storage.reader import OpenFile
from blendtitan.titan.metrics import DataClock, LossMetrics, RowsByCorpus
from tests.conftest import WriteBlend
from tests.failing_reads import Disk

ALONE: Any = SimpleNamespace(dp_cp_enabled=False)


@pytest.fixture
def dataset(write_blend: WriteBlend) -> BlendedDataset:
    """400 tokens of a, 100 of b; half of the samples are of each."""
    corpora = {"a": (0.5, [400]), "b": (0.5, [100])}
    dataset = build_datasets(write_blend(corpora, seq_length=8, split="1")).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def labels(*counts: int) -> torch.Tensor:
    """Rows of 4 labels; the given number of them count."""
    return torch.tensor([[1] * count + [-100] * (4 - count) for count in counts])


def test_rows_of_several_micro_batches_meet_their_losses() -> None:
    """As in a pipeline: all micro batches are made ready, then all losses are computed."""
    sums = RowSums()
    rows = RowsByCorpus(sums, 2, torch.device("cpu"))
    rows.expect(torch.tensor([0, 1]), labels(4, 2))
    rows.expect(torch.tensor([1, 1]), labels(1, 1))
    for losses in ([8.0, 3.0], [1.0, 4.0]):
        sums.begin_call()
        sums.add(torch.tensor(losses))
    rows.collect(has_loss=True)

    assert rows.take(ALONE) == ([8 / 4, 8 / 4], [4, 4])


def test_steps_add_up_until_they_are_taken() -> None:
    sums = RowSums()
    rows = RowsByCorpus(sums, 1, torch.device("cpu"))
    for loss in (3.0, 5.0):
        rows.expect(torch.tensor([0]), labels(2))
        sums.begin_call()
        sums.add(torch.tensor([loss]))
        rows.collect(has_loss=True)

    assert rows.take(ALONE) == ([8 / 4], [4])


def test_a_pipeline_rank_without_the_loss_counts_nothing() -> None:
    """Nor may it hold on to micro batches of the past."""
    rows = RowsByCorpus(RowSums(), 1, torch.device("cpu"))
    rows.expect(torch.tensor([0]), labels(2))
    rows.collect(has_loss=False)
    means, counts = rows.take(ALONE)

    assert math.isnan(means[0])
    assert counts == [0]


def test_corpora_without_labels_have_no_loss_metric() -> None:
    assert loss_metrics(["a", "b"], [1.5, math.nan], [10, 0]) == {
        "loss_metrics/loss/a": 1.5,
        "loss_metrics/labels/a": 10,
    }


def test_progress_has_four_metrics_of_each_corpus(dataset: BlendedDataset) -> None:
    """100 samples of 8 tokens, half of each corpus."""
    assert progress_metrics(dataset, 100) == {
        "data/tokens/a": 400,
        "data/tokens/b": 400,
        "data/epochs/a": 1.0,
        "data/epochs/b": 4.0,
        "data/share/a": 0.5,
        "data/share/b": 0.5,
        "data/configured_share/a": 0.5,
        "data/configured_share/b": 0.5,
    }


def test_the_table_shows_the_end_of_the_run(dataset: BlendedDataset) -> None:
    assert [line.split() for line in corpus_table(dataset, 100).splitlines()] == [
        ["corpus", "tokens", "share", "tokens", "read", "epochs"],
        ["a", "400", "50.00%", "400", "1"],
        ["b", "100", "50.00%", "400", "4"],
    ]


def test_the_clock_counts_samples_of_all_ranks_since_it_was_read() -> None:
    loader: Any = SimpleNamespace(samples_read=100)
    clock = DataClock(loader)
    batches = clock.waiting(iter("abc"))
    with clock.step():
        assert [next(batches), next(batches)] == ["a", "b"]
    loader.samples_read = 108
    first = clock.read()
    with clock.step():
        pass

    assert first["data/samples_per_second"] > 0
    assert first["data/wait_seconds"] >= 0
    assert clock.read() == {
        "data/wait_seconds": 0.0,
        "data/samples_per_second": 0.0,
        "data/read_retries": 0.0,
    }


def test_the_clock_counts_reads_tried_again(tmp_path: Path, disk: Disk) -> None:
    """Whatever file they were of: a disk that is about to fail shows early."""
    (tmp_path / "a").write_bytes(b"1234")
    file = OpenFile.open(str(tmp_path / "a"))
    clock = DataClock(cast(Any, SimpleNamespace(samples_read=0)))
    disk.errors = [errno.EIO] * 3
    with clock.step():
        file.read(2, at=0)

    assert clock.read()["data/read_retries"] == 3.0


def test_a_finite_stream_ends_as_it_does_without_the_clock() -> None:
    """TorchTitan raises an error of its own for it."""
    clock = DataClock(cast(Any, SimpleNamespace(samples_read=0)))

    assert list(clock.waiting(iter("abc"))) == ["a", "b", "c"]


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_summary_knows_every_step_whose_line_was_logged(
    alone: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come between the line of a step and the next statement."""
    degrees = dict.fromkeys(("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep"), 1)
    config = LossMetrics.Config(disable_color_printing=True)
    metrics = LossMetrics(config, parallel_dims=ParallelDims(**degrees, world_size=1))
    metrics.num_flops_per_token = 1
    metrics.data_loading_times = [0.1]

    def ctrl_c(record: logging.LogRecord) -> None:
        if "step:  2  " in record.getMessage():
            raise KeyboardInterrupt

    monkeypatch.setattr(caplog.handler, "emit", ctrl_c)
    with caplog.at_level(logging.INFO):
        metrics.log(1, 7.0, 7.0, 1.0)
        metrics.data_loading_times = [0.1]
        with pytest.raises(KeyboardInterrupt):
            metrics.log(2, 6.0, 6.0, 1.0)
        monkeypatch.undo()
        metrics.close()

    assert caplog.messages[-1] == "training loss: 7.0000 at step 1, 6.0000 at step 2"
