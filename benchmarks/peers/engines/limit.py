"""What no engine can beat: NumPy copies of random windows of page-cached files, nothing else.

Variants: ``two`` makes two new int64 tensors per batch; ``one`` makes one of ``seq_len + 1``
tokens, of which inputs and labels are views. Windows are drawn before any of them is read.
"""

from collections.abc import Iterator

import numpy as np
import torch
from request import Request
from sources import Source

WINDOWS = 1 << 17


def open_batches(request: Request, source: Source) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    maps = [np.memmap(f"{prefix}.bin", np.uint16, "r") for prefix in source.prefixes]
    rng = np.random.default_rng(0)
    shards = rng.integers(0, len(maps), WINDOWS)
    num_starts = np.array([len(tokens) - request.seq_len for tokens in maps])
    starts = (rng.random(WINDOWS) * num_starts[shards]).astype(np.int64)
    arrays = [np.asarray(tokens) for tokens in maps]
    batches = list(
        zip(
            shards.reshape(-1, request.batch).tolist(),
            starts.reshape(-1, request.batch).tolist(),
            strict=True,
        )
    )
    copy = {"two": _two_tensors, "one": _one_tensor}[request.variant]
    while True:
        for rows in batches:
            yield copy(arrays, *rows, request.seq_len)


def _two_tensors(
    arrays: list[np.ndarray], shards: list[int], starts: list[int], seq_len: int
) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.empty((len(shards), seq_len), dtype=torch.int64)
    labels = torch.empty((len(shards), seq_len), dtype=torch.int64)
    rows = zip(inputs.numpy(), labels.numpy(), shards, starts, strict=True)
    for into, into_labels, shard, start in rows:
        tokens = arrays[shard]
        np.copyto(into, tokens[start : start + seq_len])
        np.copyto(into_labels, tokens[start + 1 : start + seq_len + 1])
    return inputs, labels


def _one_tensor(
    arrays: list[np.ndarray], shards: list[int], starts: list[int], seq_len: int
) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.empty((len(shards), seq_len + 1), dtype=torch.int64)
    for into, shard, start in zip(both.numpy(), shards, starts, strict=True):
        np.copyto(into, arrays[shard][start : start + seq_len + 1])
    return both[:, :-1], both[:, 1:]
