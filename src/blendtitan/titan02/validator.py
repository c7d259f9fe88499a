"""Validation with TorchTitan 0.2: loss and perplexity of the blend, and of each corpus alone."""

import copy
from typing import Any

from torch import nn
from torchtitan.components.validate import Validator

from blendtitan.corpus_progress import CaughtLoss, perplexity, validation_metrics
from blendtitan.dataset.fixed import FixedSamples, blend_loss, fixed_samples
from blendtitan.dataset.interface import Dataset
from blendtitan.placed_loader import is_first_rank
from blendtitan.titan02.data import FixedDataLoader
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


class Titan02Validator(Validator):
    """TorchTitan's validator, run on fixed samples of the blend, then of each corpus.

    TorchTitan 0.2 takes the mean of the steps' losses. So samples are rounded down to whole steps.
    """

    def __init__(self, dataset: Dataset, **arguments: Any) -> None:
        # TorchTitan's constructor would open its own data set.
        vars(self).update(arguments)
        self._metrics = arguments["metrics_processor"]
        self._dataset = dataset
        self._ranks = {name: arguments[name] for name in ("dp_rank", "dp_world_size")}
        self.job_config = copy.deepcopy(arguments["job_config"])
        settings = self.job_config.validation
        self._samples_per_step = settings.local_batch_size * arguments["dp_world_size"]
        limit = settings.samples
        if limit is None and settings.steps > 0:
            limit = settings.steps * self._samples_per_step
        settings.steps = -1  # to the end of the loader
        self._fixed = [
            fixed
            for fixed in fixed_samples(
                dataset, limit=limit, samples_per_step=self._samples_per_step
            )
            if fixed.num_samples >= self._samples_per_step
        ]
        if is_first_rank():
            logger.info(
                "Each validation reads %s",
                ", ".join(
                    f"{self._whole_steps(fixed):,} samples of {fixed.corpus or 'the blend'}"
                    for fixed in self._fixed
                ),
            )

    def validate(self, model_parts: list[nn.Module], step: int = 0) -> None:
        """Log loss and perplexity of the blend and of each corpus. A collective operation."""
        losses = {fixed.corpus: self._loss(fixed, model_parts, step) for fixed in self._fixed}
        drawn = losses.pop(None, None)
        corpora = {str(corpus): loss for corpus, loss in losses.items()}
        blend = blend_loss(self._dataset, corpora) if drawn is None else drawn
        self._metrics.log_validation(loss=blend, step=step)
        self._metrics.logger.log(validation_metrics(blend, corpora), step)
        if is_first_rank():
            shown = ", ".join(f"{corpus} {loss:.4f}" for corpus, loss in corpora.items())
            logger.info(
                "validate step: %2d  perplexity: %.5g  loss of each corpus: %s",
                *(step, perplexity(blend), shown),
            )

    def _loss(self, fixed: FixedSamples, model_parts: list[nn.Module], step: int) -> float:
        """Mean loss of fixed samples, computed by TorchTitan's validator."""
        dataset = self._dataset if fixed.corpus is None else self._dataset.only(fixed.corpus)
        self.validation_dataloader = FixedDataLoader(
            self.job_config,
            dataset.once() if fixed.is_whole else dataset,
            num_samples=self._whole_steps(fixed),
            **self._ranks,
        )
        caught = CaughtLoss()
        self.metrics_processor = caught  # pyright: ignore[reportAttributeAccessIssue]
        super().validate(model_parts, step)
        self._metrics.ntokens_since_last_log += caught.ntokens_since_last_log
        return caught.loss

    def _whole_steps(self, fixed: FixedSamples) -> int:
        return fixed.num_samples // self._samples_per_step * self._samples_per_step
