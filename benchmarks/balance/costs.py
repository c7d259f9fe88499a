"""Time the costs of rows, and the deal of rows to ranks, by the lengths of documents and windows.

    python -m benchmarks.balance.costs --folder /tmp/costs

Writes sparse shards into the folder: whole .idx files beside .bin files without data, since costs
need no tokens. Document lengths are log-normal. Prints a Markdown table: processor time for 1,000
rows, the least of many calls, so that other jobs on the machine have little influence.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks.balance.waiting import dataset_of

from blendtitan import BlendedDataset
from blendtitan.dataset.attention_cost import DocumentLens, attention_costs
from blendtitan.dataset.stretches import document_at, shard_index
from blendtitan.order.balance import balanced
from blendtitan.storage.writer import encode_index

MEDIANS = (60, 400, 1700)
LENGTHS = (8192, 65536, 131072)
SPREAD = 1.2
"""Standard deviation of the logarithm of a document's length."""
SHARDS, DOCUMENTS = 20, 100_000
ROWS, RANKS, CALLS = 1000, 8, 50


def write_shards(folder: Path, median: int) -> Path:
    """Sparse shards of five corpora, and their list."""
    rng = np.random.default_rng(median)
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for shard in range(SHARDS):
        lens = np.ceil(rng.lognormal(np.log(median), SPREAD, DOCUMENTS)).astype(np.int32)
        prefix = folder / f"part_{shard:02}"
        Path(f"{prefix}.idx").write_bytes(b"".join(encode_index(lens, dtype=np.dtype("<u2"))))
        with open(f"{prefix}.bin", "wb") as file:
            file.truncate(int(lens.sum()) * 2)
        lines.append(f"{1 + shard % 7} {prefix.name} corpus_{shard % 5}")
    path = folder / "file_list.txt"
    path.write_text("\n".join(lines))
    return path


def milliseconds(call: Callable[..., object], *arguments: object, calls: int = CALLS) -> str:
    """Processor time of this thread, the least of some calls."""
    times: list[float] = []
    for _ in range(calls):
        start = time.thread_time()
        call(*arguments)
        times.append(time.thread_time() - start)
    return f"{min(times) * 1e3:.1f} ms"


def deal_of(costs: np.ndarray) -> None:
    """The deal of rows to ranks."""
    balanced(costs, ranks=RANKS, micro_batch=1)


def from_idx(dataset: BlendedDataset, slots: np.ndarray) -> None:
    """The costs of rows, found in the .idx."""
    plan, seq_len = dataset.plan(slots), dataset.config.seq_length
    for shard, at in zip(plan.shards.tolist(), plan.at_bytes.tolist(), strict=True):
        index = shard_index(dataset.rows, shard)
        first = at // index.dtype.itemsize
        documents = document_at(index, first), document_at(index, first + seq_len - 1) + 1
        starts = index.document_starts(*documents).clip(first, first + seq_len)
        (np.diff(starts) ** 2).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    folder: Path = parser.parse_args().folder
    out = [
        "| median | seq_length | costs | of which windows | deal | costs from the .idx |",
        "|---|---|---|---|---|---|",
    ]
    slots = np.arange(ROWS)
    for median in MEDIANS:
        file_list = write_shards(folder / f"{median}", median)
        for seq_len in LENGTHS:
            dataset = dataset_of(file_list, seq_len)
            lens = DocumentLens.read(dataset.rows)
            costs = attention_costs(dataset, slots, lens)
            times = [
                milliseconds(attention_costs, dataset, slots, lens),
                milliseconds(dataset.order.places, slots),
                milliseconds(deal_of, costs),
                milliseconds(from_idx, dataset, slots, calls=3),
            ]
            out.append(f"| {median:,} | {seq_len:,} | {' | '.join(times)} |")
    out += ["", f"{lens.num_bytes / (len(lens.lens) - 1):.2f} bytes per document."]
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
