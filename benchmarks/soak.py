"""A million batches through the loader: memory and open files must not grow.

    python benchmarks/soak.py [--batches 1000000] [--json]

300 shards in 7 corpora, at most 64 of them open, some with inserted EODs, two reading threads. What
the process holds is looked at 100 times along the way; each time, the batch that the threads
delivered is compared with one read directly, and the state is taken.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.storage.writer import ShardWriter

NUM_SHARDS, NUM_CORPORA, MAX_OPEN = 300, 7, 64
SEQ_LEN, MICRO_BATCH, EOD = 16, 2, 2
NUM_SAMPLES = 100
WARM_UP = 20
"""Samples before which nothing is compared: buffers, arenas and the first shards come in."""
ALLOWED_BYTES = 4 << 20


@dataclass(frozen=True)
class Sample:
    """What the process held after so many batches."""

    batches: int
    seconds: float
    rss_bytes: int
    open_files: int


def write_shards(folder: Path) -> None:
    """Shards of 1,000 to 4,000 tokens; every third lacks EOD."""
    rng = np.random.default_rng(1)
    for i in range(NUM_SHARDS):
        with ShardWriter.create(
            folder / f"corpus_{i % NUM_CORPORA}/part_{i:03d}", dtype=np.dtype("<u2")
        ) as writer:
            end = [] if i % 3 == 0 else [EOD]
            for _ in range(int(rng.integers(20, 80))):
                writer.add_document(np.array([*rng.integers(3, 60_000, 50), *end]))


def held(batches: int, start: float) -> Sample:
    """What the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    open_files = len(os.listdir("/proc/self/fd")) - 1
    seconds = time.perf_counter() - start
    return Sample(batches, seconds, pages * os.sysconf("SC_PAGE_SIZE"), open_files)


def soak(folder: Path, num_batches: int) -> list[Sample]:
    """Read so many batches; look at the process along the way."""
    config = BlendConfig(
        data_file_list=folder,
        seq_length=SEQ_LEN,
        eod_token_id=EOD,
        max_open_shards=MAX_OPEN,
        provide_attention_mask=True,
        split="1",
    )
    dataset = build_datasets(config).train
    loader = DataLoader(dataset, MICRO_BATCH, num_workers=2, attention_mask=False)
    direct = DataLoader(dataset, MICRO_BATCH, num_workers=0, attention_mask=False)
    start = time.perf_counter()
    samples: list[Sample] = []
    for number, batch in enumerate(loader, start=1):
        if number % (num_batches // NUM_SAMPLES) == 0:
            again = direct.batch_at(loader.consumed_samples - MICRO_BATCH)
            assert torch.equal(batch.input_ids, again.input_ids), number
            loader.state_dict()
            samples.append(held(number, start))
        if number == num_batches:
            break
    assert loader.consumed_samples == num_batches * MICRO_BATCH
    return samples


def growth(samples: list[Sample]) -> list[str]:
    """What grew after the warm-up."""
    rest = samples[WARM_UP:]
    part = len(rest) // 4
    first, last = rest[:part], rest[-part:]
    found: list[str] = []
    grown = min(s.rss_bytes for s in last) - max(s.rss_bytes for s in first)
    if grown > ALLOWED_BYTES:
        found.append(f"memory grew by {grown:,} bytes")
    # One that is pushed out while a thread reads it is open a moment longer.
    if min(s.open_files for s in last) > max(s.open_files for s in first):
        found.append(f"open files grew to {max(s.open_files for s in last)}")
    return found


def main() -> int:
    """Run it; 1 if anything grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print every sample")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder))
        samples = soak(Path(folder), arguments.batches)
    if arguments.json:
        print(json.dumps([asdict(sample) for sample in samples]))
    else:
        print("| batches | seconds | memory, MiB | open files |\n|---|---|---|---|")
        for sample in [samples[0], *samples[9::10]]:
            memory = f"{sample.rss_bytes / 2**20:.1f}"
            print(f"| {sample.batches:,} | {sample.seconds:.0f} | {memory} | {sample.open_files} |")
    found = growth(samples)
    print("; ".join(found) or "nothing grew", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
