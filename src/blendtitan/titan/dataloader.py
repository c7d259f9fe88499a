"""The engine's loader as a TorchTitan data loader.

TorchTitan builds it on every rank, with the rank's place among the data-parallel ranks. Tensor,
context and pipeline peers share one place, and so get the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from blendtitan.loader import DataLoader
from blendtitan.placed_loader import PlacedLoader
from blendtitan.run.segments import segment_settings
from blendtitan.titan.configured import configured_dataset

CORPUS_IDS = "corpus_ids"
"""Key of the numbers of the rows' corpora. int64, shape ``(B,)``."""


class BlendCorpusDataLoader(PlacedLoader, BaseDataLoader):
    """Batches of a blend of corpora, as TorchTitan's trainer and validator read them."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """The keys of the ``[blendcorpus]`` section, and what the rest of the run decides."""

        data_file_list: str | None = None
        """File list naming the shards, or a folder of shards. None: ``training.dataset_path``."""

        seq_length: int | None = None
        """Length of a model input, in tokens. None: ``training.seq_len``, which it must equal."""

        micro_batch_size: int | None = None
        """Samples that one rank passes through the model at once. None:
        ``training.local_batch_size``, which it must equal."""

        num_workers: int = 2
        """Threads that read ahead. 0: read in the training thread."""

        split: str = "98,1,1"
        """Relative sizes of train, valid and test, in documents of each shard: three numbers. One
        number alone gives all documents to train."""

        dataloader_type: Literal["single", "repeating", "cyclic"] = "single"
        """Kept for compatibility: the training stream is endless in all three."""

        shuffle_sample_in_corpus: bool = True
        """Visit the windows of an epoch in a pseudo-random order. Synonym: ``shuffle``."""

        blend_sample_in_corpus: bool = True
        """Blend the shards of a corpus by their weights. False: read them one after the other."""

        append_eod: bool = True
        """Every document is followed by EOD: where shards lack it, it is inserted while reading. A
        token at the beginning that is EOD as well, because BOS and EOD are one, stays where it
        is."""

        provide_attention_mask: bool = False
        """Tell documents apart: positions restart after each EOD, masks are block-causal. Where BOS
        and EOD are one token and all documents of a corpus begin with it, that token belongs to
        the document that it begins, and positions restart at it."""

        eod_token_id: int | None = None
        """Token that ends a document. None: the tokenizer's EOS."""

        eod_mask_loss: bool = False
        """Ignore the labels that would ask to predict across a document's end."""

        data_cache_path: str | None = None
        """Folder that keeps the catalog between runs, and the index of the original's order. None:
        the catalog is built at every start."""

        seed: int = 1234
        """Chooses the order of the windows of every epoch."""

        segment: list[dict[str, Any]] = field(default_factory=list)
        """Other shares from some place of the run on: tables of ``from_step`` or ``from_tokens``,
        and ``shares`` by corpus. A corpus not named keeps its share; 0 drops it."""

        on_change: Literal["error", "new_segment"] = "error"
        """What to do on resume where weights, segments, corpora, data or the sequence length are
        not those of the checkpoint. ``new_segment``: go on with what is set now, every corpus
        where it was."""

        order: Literal["blendtitan", "blendcorpus"] = "blendtitan"
        """``blendcorpus``: the order of the original package, sample for sample, to finish a run
        that was begun there. It needs ``data_cache_path``."""

        train_samples: int | None = None
        """Samples that the original's order is made for. None: ``training.steps`` times
        ``training.global_batch_size``."""

        eval_samples: int | None = None
        """Samples of a validation that the original's order is made for. None: those that
        ``[validation]`` reads."""

        max_open_shards: int = 128
        """Most ``.bin`` files open at once."""

        max_epochs: float = 4.0
        """A corpus that the whole run would read more often is an error at its start. 0: read as
        often as it may be."""

        tokenizer_check: Literal["error", "warn"] = "error"
        """What to do at the start where shards were made with another tokenizer than the run's: by
        their records, or by a sample of their tokens where they have none."""

        vocab_size: int | None = None
        """The model's vocabulary, which token ids are checked against. None: not checked."""

        split_name: Literal["train", "valid"] = "train"
        """The split that is read."""

        infinite: bool = True
        """Never end. False: read every window of the split once, on all ranks together, and stop.
        TorchTitan's validator sets it."""

        num_samples: int | None = None
        """Samples of a stream that ends, whatever ``infinite`` says; what fills up its last step
        has no labels. None: as ``infinite`` says."""

        corpus: str | None = None
        """Read this corpus alone. None: the blend."""

        corpus_ids: bool = False
        """Name each row's corpus, under ``CORPUS_IDS``. The trainer must take it out again."""

        run_samples: int | None = None
        """Samples of the whole run. The trainer sets it, None where it does not know."""

        validation_samples: int | None = None
        """Samples of a validation, 0 if there is none. The trainer sets it, None where it does not
        know."""

        positions: bool = True
        """Give the model positions. Attention backends with masks need them, SDPA does not."""

        global_batch_size: int | None = None
        """Samples of a step of all ranks together. None: one micro batch of every rank."""

        def __post_init__(self) -> None:
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
