"""Predict how long ranks wait for each other, with real document lengths.

Usage: python benchmarks/balance/waiting.py FILE_LIST

FILE_LIST is that of `blendtitan prepare` or `mix`. Prints a Markdown table: waiting by sequence
length and ranks.
"""

import sys
from pathlib import Path

import numpy as np

from blendtitan import BlendConfig, BlendedDataset, build_datasets
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
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


def main() -> None:
    file_list = Path(sys.argv[1])
    out = ["| seq_length | ranks | 1 micro batch | 8 micro batches |", "|---|---|---|---|"]
    lens = DocumentLens.read(dataset_of(file_list, LENGTHS[0]).rows)
    for seq_len in LENGTHS:
        dataset = dataset_of(file_list, seq_len)
        for ranks in RANKS:
            found = [waits(dataset, lens, ranks, number) for number in MICRO_BATCHES]
            out.append(f"| {seq_len:,} | {ranks} | {found[0]} | {found[1]} |")
    count = len(lens.lens) - 1
    mean, median = lens.lens[:-1].mean(), np.median(lens.lens[:-1])
    largest = np.quantile(lens.lens[:-1], [0.9, 0.99, 1]).astype(int).tolist()
    out += ["", f"{count:,} documents: mean {mean:,.0f} tokens, median {median:,.0f},"]
    out += [f"90 %, 99 % and largest {largest}."]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
