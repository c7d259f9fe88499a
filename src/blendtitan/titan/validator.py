"""Validation of the blend and of each corpus, on fixed samples."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.validate import Validator

from blendtitan.corpus_progress import CaughtLoss, perplexity, validation_metrics
from blendtitan.dataset.fixed import FixedSamples, blend_loss, fixed_samples
from blendtitan.errors import ConfigError
from blendtitan.settings.batches import check_validation
from blendtitan.titan.dataloader import BaseDataLoader, BlendCorpusDataLoader, configured_dataset
from blendtitan.titan.metrics import listed, logs_loss
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


class BlendCorpusValidator(Validator):
    """TorchTitan's validator, run on fixed samples of the blend and then of each corpus."""

    @dataclass(kw_only=True, slots=True)
    class Config(Validator.Config):
        """TorchTitan's configuration of a validator, with a number of samples."""

        samples: int | None = None
        """Number of samples of the blend, and of each corpus. None: ``steps`` times
        ``global_batch_size``; with ``steps = -1``, every window once."""

        global_batch_size: int = -1
        """Samples of a step. -1: one micro batch of every rank. The trainer sets it."""

        dataloader: BaseDataLoader.Config = field(
            default_factory=lambda: BlendCorpusDataLoader.Config(split_name="valid")
        )
        """The configuration of the training loader, with ``split_name = "valid"``."""

        def __post_init__(self) -> None:
            check_validation(steps=self.steps, samples=self.samples)
            Validator.Config.__post_init__(self)
            if not isinstance(self.dataloader, BlendCorpusDataLoader.Config):
                raise ConfigError(
                    f"the validator's dataloader is {type(self.dataloader).__qualname__}, expected "
                    f"BlendCorpusDataLoader.Config. For other loaders use TorchTitan's Validator."
                )

    def __init__(self, config: Config, **arguments: Any) -> None:
        assert isinstance(config.dataloader, BlendCorpusDataLoader.Config)
        self._loader = config.dataloader
        self._dataset = configured_dataset(
            self._loader, seq_len=arguments["seq_len"], tokenizer=arguments["tokenizer"]
        )
        samples_per_step = arguments["local_batch_size"] * arguments["dp_world_size"]
        limit = config.samples
        if limit is None and config.steps > 0:
            size = config.global_batch_size
            limit = config.steps * (size if size > 0 else samples_per_step)
        self._blend, *self._corpora = fixed_samples(
            self._dataset, limit=limit, samples_per_step=samples_per_step
        )
        # With steps = -1 TorchTitan warns that ranks may wait for each other; here they never do.
        super().__init__(replace(config, steps=self._blend.steps), **arguments)
        self._metrics: MetricsProcessor = arguments["metrics_processor"]
        schedule = self.parallelism.pipeline_parallel_schedule
        self._logs_loss = logs_loss(self.parallel_dims, pp_schedule=schedule)
        if self._logs_loss:
            self._log_samples()

    def _log_samples(self) -> None:
        each = listed({f"{fixed.corpus}": f"{fixed.num_samples:,}" for fixed in self._corpora})
        if self._blend.is_whole:
            logger.info(
                "Each validation reads every window of the split once: %s. The blend's loss is "
                "the mean of the corpora's losses, weighted by their shares.",
                each,
            )
        else:
            logger.info(
                "Each validation reads %s samples of the blend; of each corpus alone: %s",
                *(f"{self._blend.num_samples:,}", each),
            )

    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """Log loss and perplexity of the blend and of each corpus. A collective operation."""
        drawn = None if self._blend.is_whole else self._loss(self._blend, model_parts, step)
        losses = {
            f"{fixed.corpus}": self._loss(fixed, model_parts, step) for fixed in self._corpora
        }
        blend = blend_loss(self._dataset, losses) if drawn is None else drawn
        metrics = validation_metrics(blend, losses)
        self._metrics.log_validation(loss=blend, step=step, extra_metrics=metrics)
        if self._logs_loss:
            shown = {
                name: f"{loss:.4f} (perplexity {perplexity(loss):.5g})"
                for name, loss in losses.items()
            }
            logger.info(
                "validate step: %2d  perplexity: %.5g  loss of each corpus: %s",
                *(step, perplexity(blend), listed(shown)),
            )

    def _loss(self, fixed: FixedSamples, model_parts: list[nn.Module], step: int) -> float:
        """Mean loss of the labels of fixed samples, computed by TorchTitan's validator."""
        self.config = replace(self.config, steps=fixed.steps)
        self.dl_config = replace(
            self._loader,
            corpus=fixed.corpus,
            num_samples=None if fixed.is_whole else fixed.num_samples,
            infinite=False,
        )
        caught = CaughtLoss()
        self.metrics_processor = caught  # pyright: ignore[reportAttributeAccessIssue]
        super().validate(model_parts, step)
        self._metrics.ntokens_since_last_log += caught.ntokens_since_last_log
        return caught.loss
