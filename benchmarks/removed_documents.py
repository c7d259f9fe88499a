"""The time to read batches with a list of removed documents, beside the same without one.

    python benchmarks/removed_documents.py [--documents 400000] [--batches 400] [--rounds 9]

Each round reads the same batches with every list in turn, after all shards were read once.
"""

import argparse
import dataclasses
import logging
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.build import read_catalog
from blendtitan.storage.writer import ShardWriter

EOD, SHARDS, MICRO_BATCH = 2, 8, 8
LISTS = (0, 100, 100_000)
"""Lengths of the lists; without any document, there is no list."""


def write_shards(folder: Path, documents: int) -> Path:
    """Shards with documents of a log-normal length, of median 400 tokens."""
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        with ShardWriter.create(folder / f"{shard}", dtype=np.dtype("<u2")) as writer:
            for size in np.exp(rng.normal(np.log(400), 1, documents // SHARDS)).astype(int):
                writer.add_document(np.append(rng.integers(3, 50_000, max(1, size)), EOD))
    lines = [f"{1 / SHARDS} {folder}/{shard} web" for shard in range(SHARDS)]
    (folder / "list.txt").write_text("\n".join(lines))
    return folder / "list.txt"


def seconds(loader: DataLoader, batches: int) -> float:
    """Processor time of this thread to read so many batches."""
    began = time.thread_time()
    for number in range(batches):
        loader.batch_at(number * MICRO_BATCH)
    return time.thread_time() - began


def main() -> None:
    """Print the time of a batch with each list, and its ratio to none."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=400_000)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seq-len", type=int, default=8192)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = BlendConfig(
            data_file_list=write_shards(folder, options.documents),
            eod_token_id=EOD,
            seq_length=options.seq_len,
            provide_attention_mask=True,
            split="1",
        )
        rng, loaders, starts = np.random.default_rng(1), [], []
        for length in LISTS:
            if length:
                of_shard = options.documents // SHARDS
                chosen = rng.choice(SHARDS * of_shard, length, replace=False)
                path = folder / f"removed_{length}.txt"
                lines = (f"{folder}/{each // of_shard} {each % of_shard}\n" for each in chosen)
                path.write_text("".join(lines))
                config = dataclasses.replace(config, removed_documents=path)
            began = time.perf_counter()
            catalog = read_catalog(config)
            starts.append(time.perf_counter() - began)
            train = build_datasets(config, catalog).train
            loaders.append(
                DataLoader(train, MICRO_BATCH, num_workers=0, positions=True, attention_mask=False)
            )
            seconds(loaders[-1], options.batches)
        times = [
            [seconds(each, options.batches) for each in loaders] for _ in range(options.rounds)
        ]
    print("| documents removed | catalog | batch: fastest, median | ratio of the fastest to none |")
    print("|---|---|---|---|")
    fastest = [min(each[number] for each in times) for number in range(len(LISTS))]
    for number, length in enumerate(LISTS):
        median = statistics.median(each[number] for each in times)
        shown = [f"{1e3 * each / options.batches:.3f}" for each in (fastest[number], median)]
        ratio = fastest[number] / fastest[0]
        print(f"| {length:,} | {starts[number]:.2f} s | {', '.join(shown)} ms | {ratio:.2f} |")


if __name__ == "__main__":
    main()
