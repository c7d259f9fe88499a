"""Reads every shard of a blend of 600 twice. Started by a test, under a limit of open files."""

import sys
from pathlib import Path

import numpy as np

from blendtitan import BlendConfig, build_datasets
from blendtitan.storage.writer import ShardWriter


def main(folder: Path) -> None:
    for i in range(600):
        with ShardWriter.create(folder / f"corpus_{i % 7}/part_{i}", dtype=np.dtype("<u2")) as out:
            out.add_document(np.array([*range(3 + i, 23 + i), 2]))
    config = BlendConfig(data_file_list=folder, seq_length=10, eod_token_id=2, split="1")
    dataset = build_datasets(config).train
    assert dataset is not None
    shards = {dataset[slot].shard for slot in range(1300)}
    sys.stdout.write(f"{len(shards)} shards read\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
