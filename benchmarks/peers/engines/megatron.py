"""megatron-core's GPTDataset, blended, built as its ``datasets/readme.md`` describes.

No attention mask is made, as its documentation advises where kernels make their own. Only the
training split is built. Variants: ``fast`` sets the two flags for loading caches fast, and gives
the number of documents of every file, as Megatron-LM's ``--per-dataset-sequences-path`` does.
"""

from collections.abc import Iterator

import numpy as np
import torch
from megatron.core.datasets import helpers
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from plan import BLEND_SAMPLES
from request import Request
from sources import EOD, PRIME, Source
from torch.utils.data import BatchSampler, DataLoader


class Tokenizer:
    """What a GPTDataset asks of a tokenizer."""

    vocab_size = PRIME + 1
    eod = EOD
    pad = -1
    unique_identifiers = {"class": "Tokenizer"}  # noqa: RUF012


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    fast = request.variant == "fast"
    counts = {prefix: (source.documents, source.documents + 1) for prefix in source.prefixes}
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=request.seq_len,
        blend_per_split=[(source.prefixes, source.weights), None, None],
        path_to_cache=str(source.cache("megatron")),
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        num_dataset_builder_threads=2,
        fast_cache_load=fast,
        defer_npy_index_mmap=fast,
        sequences_per_dataset=counts if fast else None,
    )
    num_samples = source.num_samples(request.seq_len)
    train, _, _ = BlendedMegatronDatasetBuilder(
        GPTDataset, [num_samples, 0, 0], lambda: True, config
    ).build()
    # Megatron-LM's MegatronPretrainingSampler on one rank; its module needs Python 3.12.
    sampler = BatchSampler(
        range(request.first_sample, num_samples), batch_size=request.batch, drop_last=True
    )
    loader = DataLoader(
        train,
        batch_sampler=sampler,
        num_workers=request.workers,
        persistent_workers=request.workers > 0,
    )
    return _endless(loader)


def _endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        for batch in loader:
            yield batch["tokens"], batch["labels"]


def once(request: Request, source: Source) -> None:
    """The index of a blend, as ``BlendedDataset`` builds it."""
    weights = np.array(source.weights)
    dataset_index = np.zeros(BLEND_SAMPLES, np.int16)
    dataset_sample_index = np.zeros(BLEND_SAMPLES, np.int64)
    helpers.build_blending_indices(
        dataset_index,
        dataset_sample_index,
        (weights / weights.sum()).tolist(),
        len(weights),
        BLEND_SAMPLES,
        False,
    )
