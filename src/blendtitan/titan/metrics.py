"""TorchTitan's metrics, with the losses of each corpus, the time data takes, and a summary."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torchtitan.components.metrics import BaseLogger, MetricsProcessor
from torchtitan.distributed import ParallelDims
from torchtitan.distributed import utils as dist_utils

from blendtitan import metric_names
from blendtitan.corpus_losses import CorpusLosses, RowSums, counted_labels
from blendtitan.placed_loader import PlacedLoader
from blendtitan.retries import RETRIES
from blendtitan.titan.upstream import has_accelerator, logs_loss
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)
T = TypeVar("T")

_LISTED = 16  # most corpora on one line of the log


class LateLogger(BaseLogger):
    """Builds a logger of TorchTitan at first use, because building it opens files.

    A refused start then leaves no empty TensorBoard file and no empty W&B run.
    """

    def __init__(self, build: Callable[[], BaseLogger]) -> None:
        self._build = build
        self._logger: BaseLogger | None = None

    def open(self) -> BaseLogger:
        """Build the logger now, unless it exists."""
        self._logger = self._logger or self._build()
        return self._logger

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Log the metrics of a step."""
        self.open().log(metrics, step)

    def close(self) -> None:
        """Close the files, if there are any."""
        if self._logger is not None:
            self._logger.close()


class LossMetrics(MetricsProcessor):
    """TorchTitan's metrics; logs the first and the last loss of a run when it is closed."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """``[metrics]``: TorchTitan's."""

    def __init__(self, config: Config, *, pp_schedule: str = "1F1B", **arguments: Any) -> None:
        super().__init__(config, pp_schedule=pp_schedule, **arguments)
        self.has_quantization |= not has_accelerator()  # which has no MFU; a CPU has none, too
        self._logs_loss = logs_loss(self.parallel_dims, pp_schedule=pp_schedule)
        self._first: dict[str, tuple[int, float]] = {}
        self._last: dict[str, tuple[int, float]] = {}

    def _build_metric_logger(self, **arguments: Any) -> BaseLogger:
        return LateLogger(partial(super()._build_metric_logger, **arguments))

    def open(self) -> None:
        """Open the files of TensorBoard and Weights & Biases before the first value."""
        if isinstance(self.logger, LateLogger):
            self.logger.open()

    def log(self, step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
        """Log the metrics of a training step."""
        # Ctrl-C may come right after the line of the step, which the summary must not contradict.
        self._note("training", step, global_avg_loss)
        super().log(step, global_avg_loss, *args, **kwargs)

    def log_validation(self, loss: float, step: int, *args: Any, **kwargs: Any) -> None:
        """Log the metrics of a validation."""
        self._note("validation", step, loss)
        super().log_validation(loss, step, *args, **kwargs)

    def close(self) -> None:
        """Log the summary and close the files."""
        super().close()
        for name, (step, loss) in self._last.items():
            points = dict([self._first[name], (step, loss)]).items()
            if self._logs_loss:
                text = ", ".join(f"{value:.4f} at step {at}" for at, value in points)
                logger.info("%s loss: %s", name, text)
        self._last.clear()  # an interrupted run is closed twice

    def _note(self, name: str, step: int, loss: float) -> None:
        self._first.setdefault(name, (step, loss))
        self._last[name] = (step, loss)


def listed(values: Mapping[str, str]) -> str:
    """Values as ``code 1.2, web 3.4``; a long list is cut, with the number of the rest."""
    shown = [f"{name} {value}" for name, value in list(values.items())[:_LISTED]]
    more = len(values) - len(shown)
    return ", ".join([*shown, *([f"and {more:,} more, see the metrics"] if more else [])])


class RowsByCorpus:
    """Matches the rows of micro batches with their losses and their corpora."""

    def __init__(self, rows: RowSums, num_corpora: int, device: torch.device) -> None:
        self._rows = rows
        self.losses = CorpusLosses(num_corpora, device)
        self._micro_batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def expect(self, corpus_ids: torch.Tensor, labels: torch.Tensor) -> None:
        """Note a micro batch before it goes through the model.

        Args:
            corpus_ids: Number of each row's corpus. Shape ``(B,)``.
            labels: This rank's part of the labels. Shape ``(B, L)``, or fewer columns.
        """
        if not self._micro_batches:
            self._rows.restart()
        self._micro_batches.append((corpus_ids, counted_labels(labels)))

    def collect(self, *, has_loss: bool) -> None:
        """Add the losses of the noted micro batches, if this rank computed them."""
        if has_loss:
            row_losses = self._rows.of_last_calls(len(self._micro_batches))
            for (ids, labels), losses in zip(self._micro_batches, row_losses, strict=True):
                self.losses.add(ids, losses, labels)
        self._micro_batches.clear()

    def take(self, parallel_dims: ParallelDims) -> tuple[list[float], list[int]]:
        """Mean losses and labels of each corpus on all ranks, since the last call."""
        mesh = parallel_dims.get_optional_mesh("loss") if parallel_dims.dp_cp_enabled else None
        return self.losses.take(lambda sums: dist_utils.dist_sum_tensor(sums, mesh))


class DataClock:
    """Measures the time of training steps and of waiting for data, samples and retried reads."""

    def __init__(self, loader: PlacedLoader) -> None:
        self._loader = loader
        self._samples_read = 0
        self._retries = RETRIES.total
        self._wait_seconds = 0.0
        self._step_seconds = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of the loader, with the wait for each measured."""
        self._samples_read = self._loader.samples_read
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:  # a finite stream, for which TorchTitan has its own error
                return
            self._wait_seconds += time.perf_counter() - start
            yield batch

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure a training step."""
        start = time.perf_counter()
        yield
        self._step_seconds += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Metrics of the steps since the last call."""
        samples = self._loader.samples_read - self._samples_read
        metrics = {
            metric_names.WAIT_SECONDS: self._wait_seconds,
            metric_names.SAMPLES_PER_SECOND: samples / self._step_seconds,
            metric_names.READ_RETRIES: float(RETRIES.total - self._retries),
        }
        self._samples_read = self._loader.samples_read
        self._retries = RETRIES.total
        self._wait_seconds = self._step_seconds = 0.0
        return metrics
