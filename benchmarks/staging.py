"""Staging: the bytes that a node fetches, and how long it waits, against predictions.

    python benchmarks/staging.py FOLDER

Two corpora of 62 MB of random ids are written into FOLDER, and read in windows of 8,192 tokens and
blocks of 1 MiB through the S3 server of ``benchmarks/remote``. First the bytes are measured, for
several disks and numbers of epochs, as ``plan`` predicts them; then the wait of each step for its
batch, with and without staging, for one of eight nodes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from remote.server import Link, control, running

from blendtitan import BlendConfig, BlendedDataset, DataLoader, build_datasets, remote
from blendtitan.staging.blocks import Blocks, NodeReads
from blendtitan.staging.planner import Planner, predicted, shares
from blendtitan.staging.run import Staging, stage
from blendtitan.storage.writer import ShardWriter

EOD = 2
MICRO_BATCH = 8
BANDWIDTH = 1e9
PORT = 18_931


def write_shards(folder: Path) -> None:
    """Eight shards in two corpora, and a file list."""
    generator = np.random.default_rng(0)
    lines = []
    for number in range(8):
        name = f"shard_{number}"
        with ShardWriter.create(folder / name, dtype=np.dtype("<u2")) as writer:
            for _ in range(60):
                writer.add_document(np.append(generator.integers(3, 50_000, 130_000), EOD))
        lines.append(f"1 {name} corpus_{number % 2}")
    (folder / "list.txt").write_text("\n".join(lines))


def opened() -> BlendedDataset:
    """The training split in the store."""
    remote.forget()
    config = BlendConfig(
        data_file_list="s3://bucket/list.txt", seq_length=8192, eod_token_id=EOD, split="100"
    )
    dataset = build_datasets(config).train
    assert isinstance(dataset, BlendedDataset)
    return dataset


@contextmanager
def staging(loader: DataLoader, num_bytes: int, num_samples: int) -> Iterator[Staging]:
    """A loader that stages on an empty disk."""
    with tempfile.TemporaryDirectory() as disk:
        staged = stage(loader, disk, num_bytes, num_samples=num_samples)
        yield staged
        staged.close()


def measure_bytes(endpoint: str, *, epochs: float, disk: float) -> None:
    """Print the predicted and the measured bytes of one node."""
    dataset = opened()
    blocks = Blocks.of_catalog(dataset.catalog)
    num_bytes = int(disk * blocks.sizes.sum())
    steps = int(epochs * dataset.num_windows) // MICRO_BATCH
    loader = DataLoader(dataset, MICRO_BATCH, num_workers=2)
    reads = NodeReads(dataset, loader.course, [0], 0, steps * MICRO_BATCH, blocks)
    plan = predicted(Planner(blocks.sizes, shares(num_bytes)[0]), reads)
    control(endpoint, Link(0.001, BANDWIDTH))
    with staging(loader, num_bytes, steps * MICRO_BATCH) as staged:
        batches = iter(loader)
        for _ in range(steps):
            time.sleep(0.005)
            next(batches)
        counts = staged.counts
    fetched = control(endpoint, Link(0.001, BANDWIDTH)).num_bytes
    print(
        f"| {epochs} | {disk:.0%} | {plan.ratio:.2f} | {counts.fetched / counts.read:.2f} | "
        f"{fetched / counts.read:.2f} | {counts.blocks / 1e6:.0f} | {counts.windows / 1e6:.0f} | "
        f"{counts.direct / 1e6:.0f} |",
        flush=True,
    )


def measure_waits(endpoint: str, *, latency: float, stages: bool, steps: int = 100) -> None:
    """Print how long one of eight nodes waits for its batches, in steps of 50 ms."""
    control(endpoint, Link(latency, BANDWIDTH))
    loader = DataLoader(opened(), MICRO_BATCH, dp_rank=3, dp_world_size=8, num_workers=2)
    num_samples, waited = 8 * MICRO_BATCH * (steps + 1), []
    with staging(loader, 1 << 28, num_samples) if stages else nullcontext():
        batches = iter(loader)
        next(batches)
        for _ in range(steps):
            time.sleep(0.05)
            began = time.perf_counter()
            next(batches)
            waited.append(time.perf_counter() - began)
    print(
        f"| {latency * 1e3:.0f} | {'yes' if stages else 'no'} | "
        f"{statistics.median(waited) * 1e3:.1f} | {max(waited) * 1e3:.0f} | {sum(waited):.2f} |",
        flush=True,
    )


def main() -> None:
    """Measure, and print the rows of the report's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "list.txt").exists():
        write_shards(folder)
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with running(folder, PORT) as endpoint:
        os.environ |= {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint}
        control(endpoint, Link(0.0, BANDWIDTH))
        print("| epochs | disk | predicted | counted | by the store | blocks, windows, direct")
        for epochs, disk in [(1, 1.1), (2, 1.1), (2, 0.3), (0.5, 1.1)]:
            measure_bytes(endpoint, epochs=epochs, disk=disk)
        print("| latency, ms | staging | median wait, ms | longest, ms | total, s |")
        for latency in (0.02, 0.1, 0.2):
            for stages in (False, True):
                measure_waits(endpoint, latency=latency, stages=stages)
        time.sleep(2)  # for what loaders still read ahead


if __name__ == "__main__":
    main()
