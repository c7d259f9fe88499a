"""Writes the sources, once and always the same."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sources import EOD, PRIME, Source

from blendtitan.storage.writer import encode_index

FULL = {
    "one": {"num_shards": 8, "num_corpora": 1, "documents": 32_000, "mean_len": 1000},
    "many": {"num_shards": 2419, "num_corpora": 10, "documents": 400, "mean_len": 1000},
    "documents": {
        "num_shards": 100, "num_corpora": 10, "documents": 100_000, "mean_len": 1000, "sparse": True
    },
    "long": {
        "num_shards": 100, "num_corpora": 1, "documents": 700_000, "mean_len": 620, "sparse": True
    },
}  # fmt: skip
"""Reading; 2,419 files; 10 million documents; 70 million documents with 10.6 million samples."""

QUICK = {
    "one": {"num_shards": 2, "num_corpora": 1, "documents": 300, "mean_len": 200},
    "many": {"num_shards": 12, "num_corpora": 10, "documents": 100, "mean_len": 200},
    "documents": {
        "num_shards": 4, "num_corpora": 2, "documents": 500, "mean_len": 200, "sparse": True
    },
    "long": {
        "num_shards": 4, "num_corpora": 1, "documents": 700, "mean_len": 200, "sparse": True
    },
}  # fmt: skip


def write_sources(folder: Path, sizes: dict[str, dict[str, int]]) -> dict[str, Source]:
    """The sources by name; those that are complete are left alone."""
    sources: dict[str, Source] = {}
    for name, size in sizes.items():
        source = Source(folder=str(folder / name), **size)
        if not (folder / name / "source.json").exists():
            _write(source)
        sources[name] = Source.read(folder / name)
        if sources[name] != source:
            raise RuntimeError(
                f"{folder / name}: found {sources[name]}, expected {source}. Delete it."
            )
    return sources


def _write(source: Source) -> None:
    lines: list[str] = []
    for shard, (prefix, weight) in enumerate(zip(source.prefixes, source.weights, strict=True)):
        Path(prefix).parent.mkdir(parents=True, exist_ok=True)
        lens = np.random.default_rng(shard).integers(
            source.mean_len // 2, source.mean_len * 3 // 2, source.documents, dtype=np.int32
        )
        with open(f"{prefix}.idx", "wb") as file:
            file.writelines(encode_index(lens, dtype=np.dtype("<u2")))
            os.fsync(file.fileno())  # what is not on disk cannot leave the page cache
        _write_tokens(source, shard, lens)
        lines.append(f"{weight} {prefix} corpus_{source.corpus_of(shard):02}")
    source.file_list.write_text("\n".join(lines))
    source.write()


def _write_tokens(source: Source, shard: int, lens: np.ndarray) -> None:
    with open(f"{source.prefixes[shard]}.bin", "wb") as file:
        if source.sparse:
            file.truncate(2 * int(lens.sum()))
            return
        tokens = 1 + np.arange(lens.sum()) * source.step_of(source.corpus_of(shard)) % PRIME
        tokens[np.cumsum(lens) - 1] = EOD
        file.write(tokens.astype("<u2").tobytes())
        os.fsync(file.fileno())


def warm(source: Source, suffixes: Sequence[str] = ("idx", "bin")) -> None:
    """Bring a source into the page cache; holes need no room in it."""
    for prefix in source.prefixes:
        for suffix in suffixes:
            if suffix == "bin" and source.sparse:
                continue
            with open(f"{prefix}.{suffix}", "rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass


def forget_indices(source: Source) -> None:
    """Drop the ``.idx`` files of a source from the page cache."""
    for prefix in source.prefixes:
        with open(f"{prefix}.idx", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
