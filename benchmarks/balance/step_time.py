"""Time micro batches with Flex attention: rows of similar cost together, and in the global order.

Usage: python -m benchmarks.balance.step_time FILE_LIST EOD_ID [SEQ_LEN] [RANKS]

Needs a GPU. One GPU stands for each rank in turn: it runs every micro batch of every rank forward
and backward, and a micro batch of all ranks lasts as long as its slowest one.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from benchmarks.balance.waiting import dataset_of
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from blendtitan import BlendedDataset
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.documents import document_starts
from blendtitan.order.balance import balanced, duration, unbalanced

HEADS, HEAD_DIM, MICRO_BATCHES = 16, 128, 8
WIDTH = HEADS * HEAD_DIM
LINEAR = 12 * WIDTH  # of the layer below


class Layer(torch.nn.Module):
    """One transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = torch.nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = torch.nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, mask: object) -> torch.Tensor:
        """Attention and the feed-forward network, of shape ``(1, L, WIDTH)``."""
        parts = self.qkv(x).view(1, -1, 3, HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)
        attended = flex_attention(*parts, block_mask=mask)
        x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


def seconds_of(layer: torch.nn.Module, documents: torch.Tensor) -> float:
    """Time of one row forward and backward, the best of three."""
    length = len(documents)
    x = torch.randn(1, length, WIDTH, device="cuda", dtype=torch.bfloat16)

    def may_attend(_b: object, _h: object, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return (q >= kv) & (documents[q] == documents[kv])

    mask = create_block_mask(may_attend, None, None, length, length, device="cuda")
    best = float("inf")
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        layer(x, mask).sum().backward()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no GPU: nothing is measured")
    seq_len, ranks = (int(word) for word in (*sys.argv[3:], *("32768", "8")[len(sys.argv) - 3 :]))
    dataset = dataset_of(Path(sys.argv[1]), seq_len)
    size = ranks * MICRO_BATCHES
    costs = row_costs(dataset, size)
    layer = torch.compile(Layer().to("cuda", torch.bfloat16), dynamic=False)
    plan = dataset.plan(np.arange(size))
    rows = dataset.read(plan, 0, size)[:, :-1]
    starts = torch.from_numpy(document_starts(rows, eod_id=int(sys.argv[2]))).cuda()
    times = np.array([round(seconds_of(layer, row) * 1e9) for row in starts])
    for name, deal in (
        ("global order", unbalanced(size, ranks=ranks, micro_batch=1)),
        ("balanced", balanced(costs, ranks=ranks, micro_batch=1)),
    ):
        measured, predicted = duration(times, deal), duration(costs, deal)
        wait = 1 - times.sum() / (ranks * measured)
        said = 1 - costs.sum() / (ranks * predicted)
        sys.stdout.write(f"{name}: {measured / 1e6:.1f} ms, {wait:.1%} waiting ({said:.1%})\n")


def row_costs(dataset: BlendedDataset, size: int) -> np.ndarray:
    """The predicted cost of each row of the first step."""
    lens = DocumentLens.read(dataset.rows)
    return LINEAR * dataset.config.seq_length + attention_costs(dataset, np.arange(size), lens)


if __name__ == "__main__":
    main()
