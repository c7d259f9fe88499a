"""mosaicml-streaming's StreamingDataset, as LLM Foundry reads pre-tokenised text.

The same tokens as MDS, one row of ``seq_len + 1`` in each sample (see ``convert.py``), shuffled.
"""

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import torch
from request import Request
from sources import Source

# Its image datasets import torchvision, whose wheel on PyPI does not load beside a CPU torch.
sys.modules["streaming.vision"] = ModuleType("streaming.vision")

from streaming import StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402


class TokenDataset(StreamingDataset):
    """Rows of token ids."""

    def __getitem__(self, at: int) -> torch.Tensor:
        return torch.from_numpy(super().__getitem__(at)["tokens"].astype(np.int64))


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    clean_stale_shared_memory()
    dataset = TokenDataset(
        local=str(source.cache(f"mds_format_{request.seq_len}")),
        shuffle=True,
        batch_size=request.batch,
    )
    loader = StreamingDataLoader(
        dataset, batch_size=request.batch, num_workers=request.workers, drop_last=True
    )
    while True:
        for batch in loader:
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
