"""The engine's loader as a TorchTitan data loader.

TorchTitan builds it on every rank, with the rank's place among the data-parallel ranks. Tensor,
context and pipeline peers share one place, and so get the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.config import BlendSection
from blendtitan.loader import DataLoader
from blendtitan.placed_loader import PlacedLoader
from blendtitan.run.segments import segment_settings
from blendtitan.titan.configured import configured_dataset

CORPUS_IDS = "corpus_ids"
"""Key of the numbers of the rows' corpora. int64, shape ``(B,)``."""


class BlendCorpusDataLoader(PlacedLoader, BaseDataLoader):
    """Batches of a blend of corpora, as TorchTitan's trainer and validator read them."""

    @dataclass(kw_only=True, slots=True)
    class Config(BlendSection, BaseDataLoader.Config):
        """The keys of ``[blendcorpus]``, and what the rest of the run decides."""

        split_name: Literal["train", "valid"] = "train"
        """The split that is read."""

        infinite: bool = True
        """Never end. False: read every window of the split once, on all ranks together, and stop.
        TorchTitan's validator sets it."""

        num_samples: int | None = None
        """Samples of a finite stream, whatever ``infinite`` says; samples that pad its last step
        have no labels. None: as ``infinite`` says."""

        corpus: str | None = None
        """Read this corpus alone. None: the blend."""

        corpus_ids: bool = False
        """Add each row's corpus, under ``CORPUS_IDS``. The trainer must remove it again."""

        positions: bool = True
        """Give the model positions. Attention backends with masks need them, SDPA does not."""

        global_batch_size: int | None = None
        """Samples of a step of all ranks together. None: one micro batch of every rank."""

        def __post_init__(self) -> None:
            if self.segment:
                segment_settings(self.segment)

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
        loader = DataLoader(
            dataset,
            local_batch_size,
            dp_rank=dp_rank,
            dp_world_size=dp_world_size,
            num_samples=num_samples,
            # The parts of a pipeline's micro batch must not end one by one.
            batches_per_step=(config.micro_batch_size or local_batch_size) // local_batch_size,
            positions=config.positions,
            attention_mask=False,  # TorchTitan makes masks from positions
        )
        self._with_corpus_ids = config.corpus_ids
        self.dp_world_size = dp_world_size
        # Validation reads the blend as the file list has it, the same samples each time.
        is_trained_on = config.split_name == "train" and config.corpus is None
        micro_batch = config.micro_batch_size or local_batch_size
        self.place(
            loader,
            segments=segment_settings(config.segment) if is_trained_on else (),
            global_batch_size=config.global_batch_size or micro_batch * dp_world_size,
        )

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Yield ``({"input": ids, "positions": positions}, labels)``.

        Every key but ``input`` goes to the model's forward, so there is no other, unless
        ``corpus_ids`` is set for a trainer that takes it out.
        """
        for batch in self._loader:
            inputs = {"input": batch.input_ids}
            if batch.positions is not None:
                inputs["positions"] = batch.positions
            if self._with_corpus_ids:
                inputs[CORPUS_IDS] = batch.corpus_ids
            yield inputs, batch.labels
