"""Predict how long ranks wait for each other, with real document lengths, and time the deals.

Usage: python benchmarks/balance/waiting.py FILE_LIST

FILE_LIST is that of `blendtitan prepare` or `mix`. Prints two Markdown tables: waiting by sequence
length and ranks, and the time and memory that the costs of rows take.
"""

import sys
import time
from pathlib import Path

import numpy as np

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.stretches import shard_index
from blendtitan.order.balance import balanced, duration, unbalanced
from blendtitan.settings.known_models import MODELS

LENGTHS = (8192, 16384, 32768, 65536, 131072)
RANKS = (8, 64, 512)
MICRO_BATCHES = (1, 8)
STEPS = 8
MODEL = MODELS["llama3"]["8B"].linear_cost


def dataset_of(file_list: Path, seq_len: int) -> BlendedDataset:
    config = BlendConfig(data_file_list=file_list, seq_length=seq_len, append_eod=False, split="1")
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


def waits(dataset: BlendedDataset, lens: DocumentLens, ranks: int, micro_batches: int) -> str:
    """Waiting without balance and with it."""
    size, total, before, after = ranks * micro_batches, 0, 0, 0
    for step in range(STEPS):
        slots = step * size + np.arange(size)
        costs = MODEL * dataset.config.seq_length + attention_costs(dataset, slots, lens)
        total += int(costs.sum())
        before += duration(costs, unbalanced(size, ranks=ranks, micro_batch=1))
        after += duration(costs, balanced(costs, ranks=ranks, micro_batch=1))
    return " -> ".join(f"{1 - total / (ranks * each):.1%}" for each in (before, after))


def seconds(call: object, *arguments: object) -> float:
    """Processor time of one core, the median of nine calls."""
    times: list[float] = []
    for _ in range(9):
        start = time.process_time()
        call(*arguments)  # type: ignore[operator]
        times.append(time.process_time() - start)
    return sorted(times)[4]


def deal_of(costs: np.ndarray) -> None:
    """The deal of rows to eight ranks."""
    balanced(costs, ranks=8, micro_batch=1)


def from_idx(dataset: BlendedDataset, slots: np.ndarray) -> None:
    """The costs of rows, found in the .idx."""
    plan, seq_len = dataset.plan(slots), dataset.config.seq_length
    for shard, at in zip(plan.shards.tolist(), plan.at_bytes.tolist(), strict=True):
        index = shard_index(dataset.rows, shard)
        first = at // index.dtype.itemsize
        documents = index.document_at(first), index.document_at(first + seq_len - 1) + 1
        starts = index.document_starts(*documents).clip(first, first + seq_len)
        (np.diff(starts) ** 2).sum()


def main() -> None:
    file_list = Path(sys.argv[1])
    out = ["| seq_length | ranks | 1 micro batch | 8 micro batches |", "|---|---|---|---|"]
    timed = ["| seq_length | costs | deal | costs from the .idx |", "|---|---|---|---|"]
    start = time.perf_counter()
    lens = DocumentLens.read(dataset_of(file_list, LENGTHS[0]).rows)
    read = time.perf_counter() - start
    for seq_len in LENGTHS:
        dataset = dataset_of(file_list, seq_len)
        for ranks in RANKS:
            found = [waits(dataset, lens, ranks, number) for number in MICRO_BATCHES]
            out.append(f"| {seq_len:,} | {ranks} | {found[0]} | {found[1]} |")
        slots = np.arange(1000)
        costs = attention_costs(dataset, slots, lens)
        timed.append(
            f"| {seq_len:,} | {seconds(attention_costs, dataset, slots, lens) * 1e3:.1f} ms "
            f"| {seconds(deal_of, costs) * 1e3:.1f} ms "
            f"| {seconds(from_idx, dataset, slots[:100]) * 1e4:.0f} ms |"
        )
    count = len(lens.lens) - 1
    mean, median = lens.lens[:-1].mean(), np.median(lens.lens[:-1])
    largest = np.quantile(lens.lens[:-1], [0.9, 0.99, 1]).astype(int).tolist()
    out += ["", *timed, "", f"{count:,} documents: mean {mean:,.0f} tokens, median {median:,.0f},"]
    out += [f"90 %, 99 % and largest {largest}. Lengths read in {read:.2f} s, "]
    out += [f"{lens.num_bytes / count:.2f} bytes per document."]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
