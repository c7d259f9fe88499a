"""TorchTitan's metrics, with a summary of the losses at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torchtitan.components.metrics import BaseLogger, MetricsProcessor
from torchtitan.distributed import ParallelDims

from blendtitan.titan.upstream import logging_rank
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_LISTED = 16
"""Most corpora that one line of the log tells of."""


class LateLogger(BaseLogger):
    """TorchTitan's logger, which opens files when it is built, built when it is first needed.

    A start that is refused leaves no empty TensorBoard file and no empty W&B run.
    """

    def __init__(self, build: Callable[[], BaseLogger]) -> None:
        self._build = build
        self._logger: BaseLogger | None = None

    def open(self) -> BaseLogger:
        """Build it now, unless it is built already."""
        self._logger = self._logger or self._build()
        return self._logger

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Log values of a step."""
        self.open().log(metrics, step)

    def close(self) -> None:
        """Close the files, if there are any."""
        if self._logger is not None:
            self._logger.close()


class LossMetrics(MetricsProcessor):
    """Logs, when it is closed, where the losses began and where they ended."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """``[metrics]``: TorchTitan's."""

    def __init__(self, config: Config, *, pp_schedule: str = "1F1B", **arguments: Any) -> None:
        super().__init__(config, pp_schedule=pp_schedule, **arguments)
        self._knows_loss = knows_loss(self.parallel_dims, pp_schedule=pp_schedule)
        self._first: dict[str, tuple[int, float]] = {}
        self._last: dict[str, tuple[int, float]] = {}

    def _build_metric_logger(self, **arguments: Any) -> BaseLogger:
        return LateLogger(partial(super()._build_metric_logger, **arguments))

    def open(self) -> None:
        """Open the files of TensorBoard and Weights & Biases. The first value would, too."""
        if isinstance(self.logger, LateLogger):
            self.logger.open()

    def log(self, step: int, global_avg_loss: float, *args: Any, **kwargs: Any) -> None:
        """Log the metrics of a training step."""
        super().log(step, global_avg_loss, *args, **kwargs)
        self._note("training", step, global_avg_loss)

    def log_validation(self, loss: float, step: int, *args: Any, **kwargs: Any) -> None:
        """Log the metrics of a validation."""
        super().log_validation(loss, step, *args, **kwargs)
        self._note("validation", step, loss)

    def close(self) -> None:
        """Log the summary and close the files."""
        super().close()
        for name, (step, loss) in self._last.items():
            first_step, first_loss = self._first[name]
            if self._knows_loss:
                logger.info(
                    "%s loss: %.4f at step %d, %.4f at step %d",
                    *(name, first_loss, first_step, loss, step),
                )

    def _note(self, name: str, step: int, loss: float) -> None:
        self._first.setdefault(name, (step, loss))
        self._last[name] = (step, loss)


def knows_loss(parallel_dims: ParallelDims, *, pp_schedule: str) -> bool:
    """Whether this is the rank that tells of losses, of those of the pipeline's last stage."""
    rank = logging_rank(parallel_dims=parallel_dims, pp_schedule=pp_schedule)
    return torch.distributed.get_rank() == rank


def listed(values: Mapping[str, str]) -> str:
    """``code 1.2, web 3.4``: the first of many, with the number of those left out."""
    shown = [f"{name} {value}" for name, value in list(values.items())[:_LISTED]]
    more = len(values) - len(shown)
    return ", ".join([*shown, *([f"and {more:,} more, see the metrics"] if more else [])])
