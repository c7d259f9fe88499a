"""TorchTitan's trainer for our loader: completes the configuration and checks the data position.

TorchTitan calls ``batch_generator`` once, after it has loaded a checkpoint. There the
loader is aligned with the trainer's step, and the run's folder is first written to.
"""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchtitan.components.checkpointer import BaseCheckpointManager
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.distributed import ParallelDims
from torchtitan.trainer import Trainer

from blendtitan.claims.held import hold_claim
from blendtitan.config import ORIGINAL_ORDER
from blendtitan.corpus_progress import (
    corpus_table,
    loss_metrics,
    progress_metrics,
    segments_table,
)
from blendtitan.dataset.progress import check_repetition
from blendtitan.settings.batches import check_batches, check_length, data_ranks
from blendtitan.settings.guards import GuardSettings
from blendtitan.settings.section import check_follows
from blendtitan.storage.atomic_files import write_text
from blendtitan.titan import cpu, upstream
from blendtitan.titan.checkpoint import BlendCheckpointManager
from blendtitan.titan.dataloader import CORPUS_IDS, BlendCorpusDataLoader, configured_dataset
from blendtitan.titan.losses import RowLoss, why_without_rows, with_rows
from blendtitan.titan.metrics import DataClock, LossMetrics, RowsByCorpus, listed, logs_loss
from blendtitan.titan.model import decoder_config, reads_positions
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.titan.validator import BlendCorpusValidator
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.titan.guards import Guards

logger = visible_logger(__name__)

Batches = Iterable[tuple[dict[str, torch.Tensor], torch.Tensor]]


class BlendTrainer(Trainer):
    """TorchTitan's trainer, which with our loader resumes exactly and logs each corpus."""

    job = ""
    """The job of this process, for its claim on the run's folder."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """TorchTitan's configuration, with our components as defaults."""

        metrics: MetricsProcessor.Config = field(default_factory=LossMetrics.Config)
        checkpoint: BaseCheckpointManager.Config = field(
            default_factory=BlendCheckpointManager.Config
        )
        guards: GuardSettings = field(default_factory=GuardSettings)

        def maybe_log(self) -> None:
            """Log the configuration if asked to. ``BlendTrainer`` writes its file later."""
            shown = copy.copy(self)
            shown.debug = replace(self.debug, save_config_file=None)
            Trainer.Config.maybe_log(shown)

    def __init__(self, config: Config) -> None:
        config = settled(config)
        _check_batches(config)
        self._when_accepted: list[Callable[[], object]] = []
        self._guards: Guards | None = None
        self.logged_losses = ""
        """The corpora's losses that were logged last, if this rank logs them."""
        super().__init__(config)
        opens_late = not isinstance(config.validator, BlendCorpusValidator.Config)
        loader = config.validator.dataloader if config.validator.enable and opens_late else None
        if isinstance(loader, BlendCorpusDataLoader.Config):
            seq_len = upstream.sizes_of(config).seq_len
            configured_dataset(loader, seq_len=seq_len, tokenizer=self.tokenizer)
        schedule = config.parallelism.pipeline_parallel_schedule
        self._logs_loss = logs_loss(self.parallel_dims, pp_schedule=schedule)
        self._clock: DataClock | None = None
        self._rows: RowsByCorpus | None = None
        if isinstance(self.dataloader, BlendCorpusDataLoader):
            self._clock = DataClock(self.dataloader)
            self._rows = self._rows_by_corpus(self.dataloader)

    def _rows_by_corpus(self, loader: BlendCorpusDataLoader) -> RowsByCorpus | None:
        if isinstance(self.loss_fn, RowLoss):
            return RowsByCorpus(self.loss_fn.rows, len(loader.dataset.corpora), self.device)
        if self._logs_loss:
            logger.warning(
                "Per-corpus training losses are not logged with %s. All other metrics are.",
                why_without_rows(self.config),
            )
        return None

    def init_distributed(self) -> ParallelDims:
        """Connect the ranks, and claim the run's folder before it is read or written."""
        parallel_dims = super().init_distributed()
        from_first_rank(lambda: hold_claim(Path(self.config.dump_folder), job=self.job))
        name = self.config.debug.save_config_file
        if name is not None:
            text = json.dumps(self.config.to_dict(), indent=2)
            self.when_accepted(lambda: write_text(Path(self.config.dump_folder, name), text))
        return parallel_dims

    def when_accepted(self, write: Callable[[], object]) -> None:
        """Call ``write`` on rank 0 once no check can refuse the run.

        Until then a start must not change the run's folder, which describes the run that trains.
        """
        self._when_accepted.append(write)

    def accept(self) -> None:
        """Write the files that describe the run into its folder."""
        if isinstance(self.metrics_processor, LossMetrics):
            self.metrics_processor.open()
        if torch.distributed.get_rank() == 0:
            for write in self._when_accepted:
                write()

    def batch_generator(
        self, data_iterable: Batches
    ) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Batches for training. TorchTitan calls it once, after it has loaded the checkpoint."""
        if isinstance(data_iterable, BlendCorpusDataLoader) and self._clock is not None:
            self._align(data_iterable)
            data_iterable = self._clock.waiting(data_iterable)
        self.accept()
        return map(upstream.checked, super().batch_generator(data_iterable))

    def _align(self, loader: BlendCorpusDataLoader) -> None:
        """Move the loader to the trainer's step. Log and check the data of the whole run."""
        assert isinstance(self.config.dataloader, BlendCorpusDataLoader.Config)
        samples = upstream.sizes_of(self.config).local_batch_size
        global_batch_size = samples * self.gradient_accumulation_steps * loader.dp_world_size
        loader.align(self.step, global_batch_size=global_batch_size)
        self.set_micro_batches(loader, self.step + 1)
        num_samples = loader.consumed_at(max(self.step, self.config.training.steps))
        if torch.distributed.get_rank() == 0:
            logger.info("The whole run:\n%s", corpus_table(loader.dataset, num_samples))
            if len(loader.dataset.segments_read) > 1:
                logger.info("Shares of each segment:\n%s", segments_table(loader.dataset))
        check_repetition(loader.dataset, num_samples, self.config.dataloader.max_epochs)
        if self.config.dataloader.data_stage_path is not None:
            from blendtitan.titan.staging import stage

            stage(loader, self.config.dataloader, num_samples)

    def set_micro_batches(self, loader: BlendCorpusDataLoader, step: int) -> None:
        """Set the number of micro batches of a step, if there is a batch schedule."""
        if not getattr(self.config.dataloader, "batch_schedule", ()):
            return  # all steps have the same
        micro_batch = upstream.sizes_of(self.config).local_batch_size * loader.dp_world_size
        self.gradient_accumulation_steps = loader.samples_of_step(step) // micro_batch

    def post_dataloading_process(
        self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Inputs and labels of a micro batch for the model, without the corpora of its rows."""
        corpus_ids = input_dict.pop(CORPUS_IDS, None)
        inputs, labels, extra = super().post_dataloading_process(input_dict, labels)
        if self._rows is not None and corpus_ids is not None:
            self._rows.expect(corpus_ids, labels)
        return inputs, labels, extra

    def forward_backward_step(self, **arguments: Any) -> torch.Tensor:
        """Run one pass through the model, forward and back, and return its part of the loss."""
        # Every document of a step may be removed. Dividing by 0 labels would make its weights NaN.
        arguments["global_valid_tokens"].clamp_(min=1)
        loss = super().forward_backward_step(**arguments)
        if self._guards is not None:
            self._guards.losses.add(loss)
        if self._rows is not None:
            self._rows.collect(has_loss=not self.parallel_dims.pp_enabled or self.pp_has_last_stage)
        return loss

    def train_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> None:
        """Make one optimizer step, and log the metrics of corpora beside TorchTitan's."""
        if self._guards is None:  # they are not on the way to the first batch
            with self._clocked():
                data_iterator = chain([next(data_iterator)], data_iterator)
            self._guards = self._new_guards()
        with self._guards:
            with self._clocked():
                super().train_step(data_iterator)
            if self._clock is not None and self.metrics_processor.should_log(self.step):
                self._log_corpora(self._clock)

    def _new_guards(self) -> "Guards":
        from blendtitan.titan.guards import Guards

        return Guards(self)

    def _clocked(self) -> AbstractContextManager[None]:
        return nullcontext() if self._clock is None else self._clock.step()

    def _log_corpora(self, clock: DataClock) -> None:
        assert isinstance(self.dataloader, BlendCorpusDataLoader)
        dataset = self.dataloader.dataset
        metrics = clock.read() | progress_metrics(dataset, self.dataloader.consumed_samples)
        if self._rows is not None:
            losses, labels = self._rows.take(self.parallel_dims)
            metrics |= loss_metrics(dataset.corpora, losses, labels)
            if self._logs_loss:
                rows = zip(dataset.corpora, losses, labels, strict=True)
                text = listed({name: f"{loss:.4f}" for name, loss, count in rows if count})
                logger.info("step: %2d  loss of each corpus: %s", self.step, text)
                self.logged_losses = f"step {self.step}: {text}"
        self.metrics_processor.logger.log(metrics, self.step)


def _check_batches(config: Trainer.Config) -> None:
    """Check the batch arithmetic before anything is built.

    Raises:
        ConfigError: A step is not whole micro batches, or the run is too long.
    """
    parallelism = config.parallelism
    if "WORLD_SIZE" not in os.environ or config.comm.mode not in ("default", "torchcomms"):
        return  # a trial, for which TorchTitan invents the number of processes
    ranks = data_ranks(
        int(os.environ["WORLD_SIZE"]),
        replicate=parallelism.data_parallel_replicate_degree,
        shard=parallelism.data_parallel_shard_degree,
        model=parallelism.tensor_parallel_degree
        * parallelism.context_parallel_degree
        * parallelism.pipeline_parallel_degree,
    )
    seq_len, local, size = upstream.sizes_of(config)
    check_batches(size, local_batch_size=local, ranks=ranks)
    if tables := getattr(config.dataloader, "batch_schedule", ()):
        from blendtitan.settings.batch_changes import batch_changes

        batch_changes(tables, local_batch_size=local, ranks=ranks)
    samples = size if size > 0 else local * ranks
    check_length(config.training.steps, global_batch_size=samples, seq_len=seq_len)


def settled(config: BlendTrainer.Config) -> BlendTrainer.Config:
    """A copy, completed with values that follow from other parts of the configuration.

    Raises:
        ConfigError: Parts contradict each other, or this machine cannot train with it.
    """
    upstream.check_torch(config)
    config = cpu.adapted(config)
    parts: dict[str, Any] = {}
    if isinstance(config.dataloader, BlendCorpusDataLoader.Config):
        corpus_ids = why_without_rows(config) is None
        loader = _settled_loader(config.dataloader, config)
        parts["dataloader"] = replace(loader, corpus_ids=corpus_ids)
        if corpus_ids:
            parts["loss"] = with_rows(config.loss)
    validator: dict[str, Any] = {}
    if isinstance(config.validator.dataloader, BlendCorpusDataLoader.Config):
        validator["dataloader"] = _settled_loader(config.validator.dataloader, config)
    if isinstance(config.validator, BlendCorpusValidator.Config):
        validator["global_batch_size"] = upstream.sizes_of(config).global_batch_size
    return replace(config, **parts, validator=replace(config.validator, **validator))


def _settled_loader(
    loader: BlendCorpusDataLoader.Config, config: Trainer.Config
) -> BlendCorpusDataLoader.Config:
    """A loader's configuration, completed with values from the model and the trainer."""
    _, local_batch_size, global_batch_size = upstream.sizes_of(config)
    check_follows(
        "blendcorpus.micro_batch_size",
        loader.micro_batch_size,
        other="training.local_batch_size",
        expected=local_batch_size,
    )
    decided: dict[str, Any] = {"micro_batch_size": local_batch_size}
    if loader.order == ORIGINAL_ORDER:
        from blendtitan.titan.original_order import horizon_of

        decided |= horizon_of(loader, config)
    if global_batch_size > 0:
        decided["global_batch_size"] = global_batch_size
    if config.model_spec is not None:
        decided["vocab_size"] = decoder_config(config.model_spec).vocab_size
        # Context parallelism splits positions with the tokens, whether or not there are masks.
        splits_rows = config.parallelism.context_parallel_degree > 1
        decided["positions"] = splits_rows or reads_positions(config.model_spec)
        if loader.provide_attention_mask:
            from blendtitan.titan.masking import check_masks

            check_masks(config.model_spec, config)
    return replace(loader, **decided)
