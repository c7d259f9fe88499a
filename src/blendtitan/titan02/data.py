"""The data of a TorchTitan 0.2 run: tokenizer, datasets, and the loader with its position."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.batch_schedule import BatchStage, stage_at
from blendtitan.config import ORIGINAL_ORDER, BlendConfig
from blendtitan.corpus_progress import corpus_table, segments_table
from blendtitan.dataset.build import Datasets, build_datasets
from blendtitan.dataset.held_out import check_held_out
from blendtitan.dataset.interface import Dataset
from blendtitan.dataset.progress import check_repetition
from blendtitan.errors import ConfigError, EmptySplitError
from blendtitan.loader import DataLoader
from blendtitan.placed_loader import PlacedLoader, is_first_rank
from blendtitan.run_changes import RunChanges
from blendtitan.settings.batches import (
    check_batches,
    check_length,
    check_validation,
)
from blendtitan.settings.horizon import horizon, samples_of_run
from blendtitan.settings.section import BlendSection, check_follows
from blendtitan.settings.validation_sets import validation_sets
from blendtitan.titan.balance import balance
from blendtitan.titan.shared_catalog import shared_catalog
from blendtitan.titan.shared_indices import shared_indices
from blendtitan.titan02.config import BLENDCORPUS
from blendtitan.titan02.losses import IS_SUMMED
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.tokenizers import ABSENT, Tokenizer, build_tokenizer
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


class Titan02Tokenizer(BaseTokenizer):
    """One of our tokenizers as TorchTitan's."""

    def __init__(self, job_config: Any) -> None:
        super().__init__()
        self.engine: Tokenizer = build_tokenizer(job_config)
        self.bos_id = _present(self.engine.bos_id)
        self.eos_id = _present(self.engine.eos_id)
        """TorchTitan makes document masks from it, so the loader sets it to the blend's EOD."""

    def encode(self, text: str, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """Ids of a text."""
        return self.engine.encode(text, add_bos=add_bos, add_eos=add_eos)

    def decode(self, token_ids: list[int]) -> str:
        """Text of ids."""
        return self.engine.decode(token_ids)

    def get_vocab_size(self) -> int:
        """Smallest number that is larger than every id."""
        return self.engine.get_vocab_size()


def _present(token_id: int) -> int | None:
    return None if token_id == ABSENT else token_id


class Titan02DataLoader(PlacedLoader, BaseDataLoader):
    """Batches of the training split. TorchTitan iterates once, after it loaded a checkpoint."""

    def __init__(
        self,
        job_config: Any,
        dataset: Dataset,
        *,
        dp_world_size: int,
        dp_rank: int,
        step_of_run: Callable[[], int],
    ) -> None:
        self._job = job_config
        self._step_of_run = step_of_run
        self.corpus_ids: deque[torch.Tensor] | None = None
        """Corpora of the rows of each delivered batch; whoever sets it also empties it."""
        training = job_config.training
        self.global_batch_size: int = training.global_batch_size
        """Samples of a step of all ranks together."""
        if self.global_batch_size < 1:
            self.global_batch_size = training.local_batch_size * dp_world_size
        self.place(
            _loader(job_config, dataset, dp_rank=dp_rank, dp_world_size=dp_world_size),
            RunChanges.of(job_config.blendcorpus.segment, job_config.blendcorpus.skip),
            global_batch_size=self.global_batch_size,
        )

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Yield ``({"input": ids}, labels)``: TorchTitan gives every other key to the model."""
        size = self.global_batch_size
        # The state records its step; without a state, the rest of the checkpoint does.
        step = self._step_here() if self._is_placed else self._step_of_run()
        self.align(step, global_batch_size=size)
        if self._job.blendcorpus.balance != "none":
            balance(self._loader, global_batch_size=size)
        num_samples = self.consumed_at(max(step, self._job.training.steps))
        self._check_data(num_samples)
        if self._job.blendcorpus.data_stage_path is not None:
            from blendtitan.titan.staging import stage

            stage(self, self._job.blendcorpus, num_samples)
        for batch in self._loader:
            if self.corpus_ids is not None:
                self.corpus_ids.append(batch.corpus_ids)
            yield {"input": batch.input_ids}, batch.labels

    def check_step(self, step: int) -> None:
        """Check that the loader has delivered exactly the batches of the first ``step`` steps.

        Raises:
            ResumeError: The loader's position is that of another step.
        """
        stage_at(self._schedule, step).check(step, consumed_samples=self.consumed_samples)

    def _step_here(self) -> int:
        """The optimizer step that the current position belongs to."""
        stages = self._schedule or (BatchStage(global_batch_size=self.global_batch_size),)
        return [s for s in stages if s.consumed_samples <= self.consumed_samples][-1].step_at(
            self.consumed_samples
        )

    def _check_data(self, num_samples: int) -> None:
        """Check and log the amount of each corpus that the whole run reads."""
        if is_first_rank():
            logger.info("The whole run:\n%s", corpus_table(self.dataset, num_samples))
            if len(self.dataset.segments_read) > 1:
                logger.info("Shares of each segment:\n%s", segments_table(self.dataset))
        check_repetition(self.dataset, num_samples, self._job.blendcorpus.max_epochs)


class FixedDataLoader(BaseDataLoader):
    """Batches of the same samples, each time it is iterated."""

    def __init__(
        self,
        job_config: Any,
        dataset: Dataset,
        *,
        num_samples: int,
        dp_rank: int,
        dp_world_size: int,
    ) -> None:
        size = job_config.validation.local_batch_size
        ranks = {"dp_rank": dp_rank, "dp_world_size": dp_world_size}
        self._loader = _loader(job_config, dataset, size=size, num_samples=num_samples, **ranks)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Yield batches in the form of the training loader."""
        for batch in self._loader:
            yield {"input": batch.input_ids}, batch.labels

    def state_dict(self) -> dict[str, Any]:
        """An empty state: every iteration starts from the beginning."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


def _loader(job_config: Any, dataset: Dataset, *, size: int = 0, **options: Any) -> DataLoader:
    """The engine's loader. TorchTitan 0.2 finds documents by their EOD, not by positions."""
    size = size or job_config.training.local_batch_size
    return DataLoader(dataset, size, positions=False, attention_mask=False, **options)


def open_datasets(
    job_config: Any, tokenizer: Titan02Tokenizer, *, vocab_size: int, dp_world_size: int
) -> Datasets:
    """The splits of a run, from the catalog that rank 0 reads for all. A collective operation.

    Raises:
        ConfigError: The configuration cannot be used.
        TokenizerMismatchError: Shards were made with another tokenizer.
    """
    training, validation, section = (
        job_config.training,
        job_config.validation,
        job_config.blendcorpus,
    )
    if section.removed_documents is not None and not IS_SUMMED:
        raise ConfigError(
            "blendcorpus.removed_documents needs TorchTitan 0.2.2 or newer: the loss of earlier "
            "versions is NaN if all labels of a micro batch belong to removed documents."
        )
    blend = blend_config(job_config, eos_id=tokenizer.eos_id, vocab_size=vocab_size)
    size, local = training.global_batch_size, training.local_batch_size
    check_batches(size, local_batch_size=local, ranks=dp_world_size)
    global_batch_size = size if size > 0 else local * dp_world_size
    check_length(training.steps, global_batch_size=global_batch_size, seq_len=training.seq_len)
    if validation.enable and validation.dataset == BLENDCORPUS:
        check_validation(steps=validation.steps, samples=validation.samples)
    return _opened(blend, tokenizer, section.tokenizer_check)


def open_validation(
    job_config: Any, tokenizer: Titan02Tokenizer, datasets: Datasets
) -> dict[str | None, Dataset]:
    """The valid split of a run, under None, and its validation sets. A collective operation.

    Raises:
        ConfigError: A set cannot be used, or training reads documents of it.
        EmptySplitError: There is nothing to validate on.
    """
    sets = validation_sets(job_config.validation.set)
    found: dict[str | None, Dataset] = {}
    if not sets or datasets.valid is not None:
        found[None] = split_of(datasets, "valid")
    train, action = split_of(datasets, "train"), job_config.blendcorpus.tokenizer_check
    for each in sets:
        opened = _opened(each.reading(train.config), tokenizer, action)
        found[each.name] = dataset = split_of(opened, "valid")
        check_held_out(each.name, dataset.catalog, train.catalog, allow_overlap=each.allow_overlap)
    return found


def _opened(blend: BlendConfig, tokenizer: Titan02Tokenizer, action: str) -> Datasets:
    check = TokenizerCheck(blend, tokenizer.engine, action=action)
    catalog = shared_catalog(blend, build_check=lambda: check)
    indices = shared_indices(blend, catalog) if blend.has_horizon else None
    return build_datasets(blend, catalog, indices)


def blend_config(job_config: Any, *, eos_id: int | None, vocab_size: int) -> BlendConfig:
    """The engine's configuration of a run.

    Raises:
        ConfigError: No data is named, or two keys contradict each other.
    """
    training, validation = job_config.training, job_config.validation
    section: BlendSection = job_config.blendcorpus
    check_follows(
        "blendcorpus.micro_batch_size",
        section.micro_batch_size,
        other="training.local_batch_size",
        expected=training.local_batch_size,
    )
    decided: dict[str, int] = {"vocab_size": vocab_size}
    if section.order == ORIGINAL_ORDER:
        run = samples_of_run(
            steps=training.steps,
            global_batch_size=training.global_batch_size,
            seq_len=training.seq_len,
            validates=validation.enable and validation.dataset == BLENDCORPUS,
            validation=(validation.samples, validation.steps),
        )
        decided |= horizon(section, run)
    return section.blend_config(
        dataset_path=training.dataset_path, seq_len=training.seq_len, eos_id=eos_id, **decided
    )


def split_of(datasets: Datasets, name: str) -> Dataset:
    """A split of a run.

    Raises:
        EmptySplitError: It holds no documents.
    """
    dataset = getattr(datasets, name)
    if dataset is None:
        raise EmptySplitError(
            f"no corpus has documents in the {name} split. Give it a larger part of "
            f"blendcorpus.split, or, for valid, set validation.enable = false."
        )
    return dataset
