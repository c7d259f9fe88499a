"""What a training run logs of each corpus: losses, tokens, epochs, shares."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torchtitan.distributed import ParallelDims
from torchtitan.distributed import utils as dist_utils

from blendtitan.corpus_losses import CorpusLosses, RowSums, counted_labels
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import progress
from blendtitan.files import RETRIES
from blendtitan.metric_names import (
    CORPUS_LABELS,
    CORPUS_LOSS,
    READ_RETRIES,
    SAMPLES_PER_SECOND,
    WAIT_SECONDS,
)
from blendtitan.tables import as_text, number_table
from blendtitan.titan.dataloader import BlendCorpusDataLoader

T = TypeVar("T")


class RowsByCorpus:
    """Brings together the rows of micro batches, their losses and their corpora."""

    def __init__(self, rows: RowSums, num_corpora: int, device: torch.device) -> None:
        self._rows = rows
        self._losses = CorpusLosses(num_corpora, device)
        self._micro_batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def expect(self, corpus_ids: torch.Tensor, labels: torch.Tensor) -> None:
        """Note a micro batch that is about to go through the model.

        Args:
            corpus_ids: Number of each row's corpus. Shape ``(B,)``.
            labels: This rank's part of the labels. Shape ``(B, L)``, or fewer columns.
        """
        if not self._micro_batches:
            self._rows.restart()
        self._micro_batches.append((corpus_ids, counted_labels(labels)))

    def collect(self, *, has_loss: bool) -> None:
        """Add the losses of the micro batches noted, if this rank computed them."""
        if has_loss:
            row_losses = self._rows.of_last_calls(len(self._micro_batches))
            for (ids, labels), losses in zip(self._micro_batches, row_losses, strict=True):
                self._losses.add(ids, losses, labels)
        self._micro_batches.clear()

    def take(self, parallel_dims: ParallelDims) -> tuple[list[float], list[int]]:
        """Mean losses and labels of each corpus since they were last taken, of all ranks."""
        mesh = parallel_dims.get_optional_mesh("loss") if parallel_dims.dp_cp_enabled else None
        return self._losses.take(lambda sums: dist_utils.dist_sum_tensor(sums, mesh))


class DataClock:
    """Seconds of training steps and of waiting, samples, and reads tried again, since last read."""

    def __init__(self, loader: BlendCorpusDataLoader) -> None:
        self._loader = loader
        self._samples_read = 0
        self._retries = RETRIES.total
        self._wait_seconds = 0.0
        self._step_seconds = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of the loader. How long each is waited for is counted."""
        self._samples_read = self._loader.consumed_samples
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:  # a finite stream: TorchTitan has an error of its own for it
                return
            self._wait_seconds += time.perf_counter() - start
            yield batch

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count the time of a training step."""
        start = time.perf_counter()
        yield
        self._step_seconds += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Metrics of the steps since it was last read; begin anew."""
        samples = self._loader.consumed_samples - self._samples_read
        metrics = {
            WAIT_SECONDS: self._wait_seconds,
            SAMPLES_PER_SECOND: samples / self._step_seconds,
            READ_RETRIES: float(RETRIES.total - self._retries),
        }
        self._samples_read = self._loader.consumed_samples
        self._retries = RETRIES.total
        self._wait_seconds = self._step_seconds = 0.0
        return metrics


def loss_metrics(
    corpora: Sequence[str], losses: Sequence[float], labels: Sequence[int]
) -> dict[str, float]:
    """Metrics of the losses of corpora; those that had no labels are left out."""
    found = [row for row in zip(corpora, losses, labels, strict=True) if row[2]]
    metrics: dict[str, float] = {f"{CORPUS_LOSS}/{name}": loss for name, loss, _ in found}
    return metrics | {f"{CORPUS_LABELS}/{name}": count for name, _, count in found}


def progress_metrics(dataset: Dataset, consumed_samples: int) -> dict[str, float]:
    """Metrics of how far each corpus has been read."""
    reached = progress(dataset, consumed_samples)
    columns = {
        "data/tokens": reached.tokens,
        "data/epochs": reached.epochs,
        "data/share": reached.shares,
        "data/configured_share": reached.configured_shares,
    }
    return {
        f"{metric}/{name}": value
        for metric, values in columns.items()
        for name, value in zip(dataset.corpora, values.tolist(), strict=True)
    }


def corpus_table(dataset: Dataset, num_samples: int) -> str:
    """Tokens, share and epochs of each corpus, at the end of a run of ``num_samples`` samples."""
    end = progress(dataset, num_samples)
    table = number_table("corpus", "tokens", "share", "tokens read", "epochs")
    columns = (dataset.corpus_tokens, end.configured_shares, end.tokens, end.epochs)
    for name, tokens, share, read, epochs in zip(dataset.corpora, *columns, strict=True):
        table.add_row(name, f"{tokens:,}", f"{share:.2%}", f"{read:,}", f"{epochs:.3g}")
    return as_text(table)


def segments_table(dataset: Dataset) -> str:
    """The first slot and the shares of each segment, those behind the run among them."""
    table = number_table("corpus", *(f"from slot {s.first_slot:,}" for s in dataset.segments_read))
    for name in dataset.corpora:
        shares = [s.weights.get(name, 0.0) / sum(s.weights.values()) for s in dataset.segments_read]
        table.add_row(name, *(f"{share:.2%}" for share in shares))
    return as_text(table)
