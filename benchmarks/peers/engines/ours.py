"""blendtitan, without threads where no workers are asked for.

Variants: ``kept`` has the catalog of an earlier start in ``data_cache_path``; ``open`` may keep all
files open (``max_open_shards``).
"""

from collections.abc import Iterator

import torch
from request import Request
from sources import EOD, SPLIT, Source

from blendtitan import BlendConfig, DataLoader, build_datasets


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    kept = source.cache("ours") if request.variant == "kept" else None
    config = BlendConfig(
        data_file_list=source.file_list,
        seq_length=request.seq_len,
        eod_token_id=EOD,
        split=SPLIT,
        data_cache_path=kept,
        **({"max_open_shards": source.num_shards} if request.variant == "open" else {}),
    )
    loader = DataLoader(
        build_datasets(config).train,
        request.batch,
        num_workers=request.workers,
        prefetch=request.prefetch,
    )
    loader.consumed_samples = request.first_sample
    return ((batch.input_ids, batch.labels) for batch in loader)
