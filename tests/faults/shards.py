"""Shards as the commands read them, whole and with lengths that do not count the EODs."""

from pathlib import Path

import numpy as np

from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.writer import ShardWriter, encode_index

EOD = 2


def write_shards(folder: Path, count: int) -> None:
    """Shards of about 6 KB in three corpora; every document ends in EOD."""
    for number in range(count):
        rng = np.random.default_rng(number)
        lens = rng.integers(1, 30, 200).astype(np.int32)
        tokens = rng.integers(3, 60000, int(lens.sum()))
        tokens[np.cumsum(lens) - 1] = EOD
        prefix = folder / f"corpus{number % 3}" / f"{number:04d}"
        with ShardWriter.create(prefix, dtype=np.dtype("<u2")) as writer:
            writer.add_documents(tokens, lens)


def forget_eods(folder: Path) -> None:
    """Give every shard the ``.idx`` of tools that append EODs without counting them."""
    for prefix in find_shards(folder):
        index = ShardIndex.open(prefix)
        lens = np.diff(index.document_starts(0, index.num_documents)) - 1
        blocks = encode_index(lens.astype(np.int32), dtype=np.dtype("<u2"))
        Path(f"{prefix}.idx").write_bytes(b"".join(blocks))
