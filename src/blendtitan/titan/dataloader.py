"""The engine's loader as a TorchTitan data loader.

TorchTitan builds it on every rank, with the rank's index among the data-parallel ranks. Tensor,
context and pipeline peers share one index, and so get the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.config import BlendConfig
from blendtitan.dataset.build import Datasets, build_datasets
from blendtitan.dataset.interface import Dataset
from blendtitan.errors import EmptySplitError
from blendtitan.loader import DataLoader
from blendtitan.placed_loader import PlacedLoader
from blendtitan.settings.section import BlendSection
from blendtitan.titan.shared_catalog import shared_catalog
from blendtitan.titan.tokenizer import engine_tokenizer
from blendtitan.titan.upstream import is_main
from blendtitan.tokenizer_check.run import TokenizerCheck
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.run_changes import RunChanges
if TYPE_CHECKING or not is_main():
    from torchtitan.components.dataloader import BaseDataLoader
else:
    from torchtitan.components.data.loader import BaseDataLoader

logger = visible_logger(__name__)

CORPUS_IDS = "corpus_ids"
"""Key of the corpus index of each row. int64, shape ``(B,)``."""


class BlendCorpusDataLoader(PlacedLoader, BaseDataLoader):
    """Batches of a blend, for TorchTitan's trainer and validator.

    Iterating yields ``({"input": ids, "positions": positions}, labels)``, each an int64 tensor of
    shape ``(B, L)``. ``positions`` is absent if the configuration's ``positions`` is false.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BlendSection, BaseDataLoader.Config):
        """The keys of ``[blendcorpus]``, and settings that follow from the rest of the run."""

        split_name: Literal["train", "valid"] = "train"
        """The split to read."""

        infinite: bool = True
        """Whether the stream is endless. False: read every window of the split once, on all ranks
        together, and stop. TorchTitan's validator sets this."""

        num_samples: int | None = None
        """Length of a finite stream, in samples of all ranks; takes precedence over ``infinite``.
        Samples that pad its last step have no labels. None: ``infinite`` decides."""

        corpus: str | None = None
        """Read only this corpus. None: the blend."""

        corpus_ids: bool = False
        """Add the corpus index of each row, under ``CORPUS_IDS``. The trainer must remove it."""

        positions: bool = True
        """Whether batches have positions. Attention with masks needs them; SDPA does not."""

        global_batch_size: int | None = None
        """Samples of one step of all ranks together. None: one micro batch of every rank."""

        batch_schedule: list[dict[str, Any]] = field(default_factory=list)
        """``[[training.batch_schedule]]``: other sizes of later steps. Of the training loader."""

        def __post_init__(self) -> None:
            self.changes()

        def changes(self) -> "RunChanges | None":
            """Segments, skips and batch sizes of the run, checked."""
            if not (self.segment or self.skip or self.batch_schedule):
                return None
            from blendtitan.run_changes import RunChanges

            return RunChanges.of(self.segment, self.skip, self.batch_schedule)

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        tokenizer: BaseTokenizer,
        seq_len: int,
        local_batch_size: int,
        snapshot_every_n_steps: int | None = None,  # our state is always current
    ) -> None:
        dataset = configured_dataset(config, seq_len=seq_len, tokenizer=tokenizer)
        if config.corpus is not None:
            dataset = dataset.only(config.corpus)
        num_samples = config.num_samples
        if num_samples is None and not config.infinite:
            dataset = dataset.once()
            num_samples = dataset.num_windows
        micro_batch = config.micro_batch_size or local_batch_size
        loader = DataLoader(
            dataset,
            local_batch_size,
            dp_rank=dp_rank,
            dp_world_size=dp_world_size,
            num_samples=num_samples,
            # All parts of a pipeline's micro batch must end together.
            batches_per_step=micro_batch // local_batch_size,
            positions=config.positions,
            attention_mask=False,  # TorchTitan makes masks from positions
        )
        self._with_corpus_ids = config.corpus_ids
        self._balance = config.balance
        self.dp_world_size = dp_world_size
        # Validation reads the blend of the file list, the same samples each time.
        is_training = config.split_name == "train" and config.corpus is None
        changes = config.changes() if is_training else None
        global_batch_size = config.global_batch_size or micro_batch * dp_world_size
        self.place(loader, changes, global_batch_size=global_batch_size)

    def align(self, step: int, *, global_batch_size: int) -> None:
        """See ``PlacedLoader.align``; then balance the steps, if so configured."""
        super().align(step, global_batch_size=global_batch_size)
        if self._balance != "none":
            from blendtitan.titan.balance import balance

            size = self.samples_of_step(step + 1)
            balance(self._loader, global_batch_size=size, schedule=self._schedule)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        # TorchTitan passes every key except "input" to the model's forward.
        for batch in self._loader:
            inputs = {"input": batch.input_ids}
            if batch.positions is not None:
                inputs["positions"] = batch.positions
            if self._with_corpus_ids:
                inputs[CORPUS_IDS] = batch.corpus_ids
            yield inputs, batch.labels


def configured_dataset(
    config: BlendCorpusDataLoader.Config, *, seq_len: int, tokenizer: BaseTokenizer
) -> Dataset:
    """The split of a configuration, with all corpora. Opened once for all loaders.

    Raises:
        EmptySplitError: The split has no documents.
        TokenizerMismatchError: Shards were made with another tokenizer.
    """
    blend = config.blend_config(
        dataset_path=config.dataset_path, seq_len=seq_len, eos_id=tokenizer.eos_id
    )
    run_tokenizer = _RunTokenizer(tokenizer, id(tokenizer), config.tokenizer_check)
    dataset = getattr(_datasets(blend, run_tokenizer), config.split_name)
    if dataset is None:
        raise EmptySplitError.of_split(config.split_name, blend)
    return dataset


@dataclass(frozen=True, slots=True)
class _RunTokenizer:
    """The tokenizer of a run, equal only to itself, because some tokenizers have no hash."""

    tokenizer: BaseTokenizer = field(compare=False)
    number: int
    action: str

    def check(self, blend: BlendConfig) -> TokenizerCheck | None:
        """The comparison of shards and tokenizer. None: blendtitan cannot read this tokenizer."""
        engine = engine_tokenizer(self.tokenizer)
        if engine is not None:
            return TokenizerCheck(blend, engine, action=self.action)
        logger.warning(
            "The shards are not compared with the tokenizer: blendtitan cannot read a %s.",
            type(self.tokenizer).__qualname__,
        )
        return None


# The validator builds its loader for every validation, which must cost neither reads nor another
# broadcast. Every rank builds the same loaders in the same order. Each validation set is a blend.
@lru_cache(maxsize=64)
def _datasets(blend: BlendConfig, tokenizer: _RunTokenizer) -> Datasets:
    catalog = shared_catalog(blend, build_check=lambda: tokenizer.check(blend))
    if not blend.has_horizon:
        return build_datasets(blend, catalog)
    from blendtitan.titan.shared_indices import shared_indices

    return build_datasets(blend, catalog, shared_indices(blend, catalog))
