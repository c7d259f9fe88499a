"""litdata's StreamingDataset with its TokensLoader, as LitGPT reads pre-tokenised text.

The same tokens, in its own format (see ``convert.py``); windows of ``seq_len + 1`` that are cast to
int64 and cut into inputs and labels as LitGPT's ``pretrain.py`` does. Shuffled.
"""

from collections.abc import Iterator

import torch
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
from request import Request
from sources import Source


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    dataset = StreamingDataset(
        input_dir=str(source.cache("litdata_format")),
        item_loader=TokensLoader(block_size=request.seq_len + 1),
        shuffle=True,
        drop_last=True,
    )
    loader = StreamingDataLoader(
        dataset, batch_size=request.batch, num_workers=request.workers, drop_last=True
    )
    while True:
        for batch in loader:
            yield (
                batch[:, : request.seq_len].contiguous().long(),
                batch[:, 1 : request.seq_len + 1].contiguous().long(),
            )
