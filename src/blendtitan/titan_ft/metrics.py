"""Metrics of a fault-tolerant job: all replicas know them, and the one that leads logs them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torchtitan.components.metrics import BaseLogger, LoggerContainer, TensorBoardLogger

from blendtitan.titan.metrics import LateLogger, LossMetrics


class LeadLogger(BaseLogger):
    """Logs while this replica leads, each time into files of its own.

    Readers take the steps of the file that was opened last, as for a run that was resumed.
    """

    def __init__(self, build: Callable[[], BaseLogger]) -> None:
        self._build = build
        self._logger: BaseLogger | None = None
        self.leads = False
        """Whether this replica leads."""

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Log the metrics of a step, also if the process is killed right after."""
        if not self.leads:
            self.close()
            return
        self._logger = self._logger or _opened(self._build())
        self._logger.log(metrics, step)
        _flush(self._logger)

    def close(self) -> None:
        """Close the files, if there are any."""
        if self._logger is not None:
            self._logger.close()
            self._logger = None


class ReplicaMetrics(LossMetrics):
    """Metrics of all replicas. Every replica prints them."""

    @dataclass(kw_only=True, slots=True)
    class Config(LossMetrics.Config):
        """``[metrics]``: TorchTitan's."""

    is_in_round = False
    """Whether the step is committed only with later ones. Its loss is that of this replica."""

    def should_log(self, step: int) -> bool:
        """Whether to log a step."""
        return not self.is_in_round and super().should_log(step)

    def _build_metric_logger(self, **arguments: Any) -> BaseLogger:
        return LeadLogger(partial(super()._build_metric_logger, **arguments))

    def lead(self, leads: bool) -> None:
        """Log from now on, or do not."""
        assert isinstance(self.logger, LeadLogger)
        self.logger.leads = leads


def _opened(logger: BaseLogger) -> BaseLogger:
    return logger.open() if isinstance(logger, LateLogger) else logger


def _flush(logger: BaseLogger) -> None:
    loggers = logger._loggers if isinstance(logger, LoggerContainer) else [logger]
    for each in loggers:
        if isinstance(each, TensorBoardLogger):
            each.writer.flush()
