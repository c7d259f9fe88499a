"""OLMo-core's NumpyFSLDataset and its loader, as its documentation on data loading does.

Its files are plain token ids, which a Megatron ``.bin`` is. Labels are made by ``get_labels``, as
its train module does; the last of each row is -100. Variants: ``threads`` leaves ``num_threads`` at
its default, 4 threads where there are no workers; else there are none.
"""

from collections.abc import Iterator

import torch
from olmo_core.data import NumpyDataLoaderConfig, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.utils import get_labels
from request import Request
from sources import EOD, PRIME, Source


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    work = source.cache("olmo")
    work.mkdir(parents=True, exist_ok=True)
    dataset = NumpyFSLDatasetConfig(
        tokenizer=TokenizerConfig(vocab_size=PRIME + 1, eos_token_id=EOD, pad_token_id=EOD),
        paths=[f"{prefix}.bin" for prefix in source.prefixes],
        sequence_length=request.seq_len,
        work_dir=str(work),
    ).build()
    batch_tokens = request.batch * request.seq_len
    loader = NumpyDataLoaderConfig(
        global_batch_size=batch_tokens,
        seed=1234,
        work_dir=str(work),
        num_threads=None if request.variant == "threads" else 0,
        num_workers=request.workers,
        target_device_type="cpu",
    ).build(dataset)
    if request.first_sample:
        # Of a state only the position is read: the rest is compared with the dataset.
        state = loader.state_dict() | {
            "batches_processed": request.first_sample // request.batch,
            "tokens_processed": request.first_sample * request.seq_len,
            "epoch": 1,
        }
        loader.load_state_dict(state)
        loader.reshuffle(epoch=1)
    return _endless(loader)


def _endless(loader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    if not loader._epoch:
        loader.reshuffle(epoch=1)
    while True:
        for batch in loader:
            yield batch["input_ids"], get_labels(batch)
        loader.reset()
        loader.reshuffle()
