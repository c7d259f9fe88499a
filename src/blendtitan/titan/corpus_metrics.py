"""The losses of each corpus and the time that data took, gathered while TorchTitan trains."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torchtitan.distributed import ParallelDims
from torchtitan.distributed import utils as dist_utils

from blendtitan.corpus_losses import CorpusLosses, RowSums, counted_labels
from blendtitan.files import RETRIES
from blendtitan.metric_names import READ_RETRIES, SAMPLES_PER_SECOND, WAIT_SECONDS
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
