"""Validation with TorchTitan 0.2: loss and perplexity of the blend, its corpora, and of sets."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn
from torchtitan.components.validate import Validator

from blendtitan.corpus_progress import CaughtLoss, perplexity, validation_metrics
from blendtitan.dataset.fixed import FixedSamples
from blendtitan.dataset.fixed_data import FixedData, losses_of
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import ConfigError
from blendtitan.placed_loader import is_first_rank
from blendtitan.settings.validation_sets import validation_sets
from blendtitan.titan02.data import FixedDataLoader
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


class Titan02Validator(Validator):
    """TorchTitan's validator, run on fixed samples of the blend, of each corpus, and of sets.

    TorchTitan 0.2 takes the mean of the steps' losses. So samples are rounded down to whole steps.

    Args:
        datasets: The valid split of the blend, under None, and the sets by name.
        arguments: As TorchTitan passes them.
    """

    def __init__(self, datasets: Mapping[str | None, Dataset], **arguments: Any) -> None:
        # TorchTitan's constructor would open its own data set.
        vars(self).update(arguments)
        self._metrics = arguments["metrics_processor"]
        self._ranks = {name: arguments[name] for name in ("dp_rank", "dp_world_size")}
        self.job_config = copy.deepcopy(arguments["job_config"])
        settings = self.job_config.validation
        self._samples_per_step = settings.local_batch_size * arguments["dp_world_size"]
        limit = settings.samples
        if limit is None and settings.steps > 0:
            limit = settings.steps * self._samples_per_step
        limits: dict[str | None, int | None] = {None: limit}
        limits |= {each.name: each.samples for each in validation_sets(settings.set)}
        settings.steps = -1  # to the end of the loader
        per_step = self._samples_per_step
        self._data = [
            self._whole_steps(
                FixedData.of(name, dataset, limit=limits[name], samples_per_step=per_step)
            )
            for name, dataset in datasets.items()
        ]
        if is_first_rank():
            logger.info(
                "Each validation reads %s",
                ", ".join(
                    f"{fixed.num_samples:,} samples of {fixed.corpus or data.name or 'the blend'}"
                    for data in self._data
                    for fixed in data.needed
                ),
            )

    def validate(self, model_parts: list[nn.Module], step: int = 0) -> None:
        """Log losses and perplexities. A collective operation."""
        blend, losses = losses_of(
            self._data, lambda data, fixed: self._loss(data, fixed, model_parts, step)
        )
        if blend is not None:
            self._metrics.log_validation(loss=blend, step=step)
        self._metrics.logger.log(validation_metrics(blend, losses), step)
        if is_first_rank():
            of_blend = "" if blend is None else f"  perplexity: {perplexity(blend):.5g}"
            shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
            logger.info(
                "validate step: %2d%s  loss of each corpus%s: %s",
                *(step, of_blend, " and set" * any(data.name for data in self._data), shown),
            )

    def _loss(
        self, data: FixedData, fixed: FixedSamples, model_parts: list[nn.Module], step: int
    ) -> float:
        """Mean loss of fixed samples, computed by TorchTitan's validator."""
        dataset = data.dataset if fixed.corpus is None else data.dataset.only(fixed.corpus)
        self.validation_dataloader = FixedDataLoader(
            self.job_config,
            dataset.once() if fixed.is_whole else dataset,
            num_samples=fixed.num_samples,
            **self._ranks,
        )
        caught = CaughtLoss()
        self.metrics_processor = caught  # pyright: ignore[reportAttributeAccessIssue]
        super().validate(model_parts, step)
        self._metrics.ntokens_since_last_log += caught.ntokens_since_last_log
        return caught.loss

    def _whole_steps(self, data: FixedData) -> FixedData:
        """Samples rounded down to whole steps, without corpora that have less than one."""
        least = self._samples_per_step
        samples, *corpora = (
            replace(fixed, num_samples=fixed.num_samples // least * least)
            for fixed in (data.samples, *data.corpora)
        )
        found = replace(data, samples=samples, corpora=[f for f in corpora if f.num_samples])
        if not found.needed or not found.needed[0].num_samples:
            raise ConfigError(
                f"a validation reads {data.samples.num_samples:,} samples of "
                f"{data.name or 'the blend'}, expected at least {least:,}: "
                f"validation.local_batch_size on every rank. Validate on more, or lower it."
            )
        return found
