"""100,000 shards, 10 trillion tokens, 500 corpora: start-up, memory, open files, batches anywhere.

    .venv/bin/python benchmarks/scale.py --folder /tmp/scale [--shards 100000] [--corpora 500]

The shards are sparse: their .idx are whole, their .bin are holes of the right size, so that 20 TB
need about a gigabyte of disk. Reading a hole costs what reading cached pages costs. Prints one
Markdown table; every figure is of this one run.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DOCUMENTS = 100
DOCUMENT_TOKENS = 1_000_000
SEQ_LENGTH = 4096
MICRO_BATCH = 8
EOD = 0  # what holes hold: every document ends in it


def write_shards(folder: Path, shards: int, corpora: int) -> None:
    """Sparse shards and their list, unless they are there."""
    from blendtitan.storage.writer import encode_index

    done = folder / f"list_{shards}_{corpora}.txt"
    if done.exists():
        return
    lens = np.full(DOCUMENTS, DOCUMENT_TOKENS, np.int32)
    index = b"".join(encode_index(lens, dtype=np.dtype("<u2")))
    lines: list[str] = []
    for shard in range(shards):
        corpus = f"corpus_{shard % corpora:03}"
        (folder / corpus).mkdir(parents=True, exist_ok=True)
        prefix = folder / corpus / f"part_{shard:06}"
        Path(f"{prefix}.idx").write_bytes(index)
        with open(f"{prefix}.bin", "wb") as file:
            file.truncate(DOCUMENTS * DOCUMENT_TOKENS * 2)
        lines.append(f"{1 + shard % 7} {prefix.relative_to(folder)} {corpus}")
    done.write_text("\n".join(lines))


def rss_mib() -> float:
    """Present memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def floor(folder: Path) -> dict[str, float]:
    """Opening every .idx once and reading its header, in one thread: what start-up cannot beat."""
    paths = sorted(folder.glob("*/*.idx"))
    start = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            file.read(34)
    return {"floor: header of every .idx, s": time.perf_counter() - start}


def start_up(folder: Path, shards: int, corpora: int, kept: Path | None) -> dict[str, float]:
    """What one process meets; run in one of its own."""
    import torch  # noqa: F401

    from blendtitan import BlendConfig, DataLoader, build_datasets
    from blendtitan.dataset.build import read_catalog
    from blendtitan.storage.catalog_bytes import encode_catalog

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    config = BlendConfig(
        data_file_list=folder / f"list_{shards}_{corpora}.txt",
        seq_length=SEQ_LENGTH,
        eod_token_id=EOD,
        data_cache_path=kept,
        split="98,1,1",
    )
    gc.collect()  # What the imports left would be collected some time later, at 80 ms a pass.
    before, files_before = rss_mib(), open_files()
    start = time.perf_counter()
    catalog = read_catalog(config)
    found = {"catalog, s": time.perf_counter() - start}
    found["catalog as sent to other ranks, MB"] = len(encode_catalog(catalog)) / 1e6
    at = time.perf_counter()
    train = build_datasets(config, catalog).train
    assert train is not None
    found["train dataset, s"] = time.perf_counter() - at
    loader = DataLoader(train, MICRO_BATCH, num_workers=2)
    at = time.perf_counter()
    batches = iter(loader)
    next(batches)
    found["first batch, ms"] = 1e3 * (time.perf_counter() - at)
    found["start to first batch, s"] = time.perf_counter() - start
    for _ in range(300):
        next(batches)
    found["open files above those before"] = open_files() - files_before
    at = time.perf_counter()
    state = loader.state_dict()
    found["state, ms"] = 1e3 * (time.perf_counter() - at)
    found["state, MB"] = len(state["blendtitan"]) / 1e6
    at = time.perf_counter()
    loader.load_state_dict(state)
    found["resume from a state, s"] = time.perf_counter() - at
    for exponent in (11, 12):
        slot = 10**exponent
        at = time.perf_counter()
        loader.consumed_samples = slot
        next(batches)
        found[f"first batch at slot 10^{exponent}, ms"] = 1e3 * (time.perf_counter() - at)
    found["memory above imports, MiB"] = rss_mib() - before
    return found


def ranks_agree(folder: Path, shards: int, corpora: int, ranks: int = 4096) -> dict[str, float]:
    """Each rank alone finds its samples of a step: together they are the step's, none twice."""
    from blendtitan import BlendConfig, build_datasets
    from blendtitan.order.slots import Course

    config = BlendConfig(
        data_file_list=folder / f"list_{shards}_{corpora}.txt",
        seq_length=SEQ_LENGTH,
        eod_token_id=EOD,
    )
    train = build_datasets(config).train
    assert train is not None
    consumed = 10**9
    start = time.perf_counter()
    ids = [
        train.sample_ids(Course(MICRO_BATCH, rank, ranks).slots(consumed)[0])
        for rank in range(ranks)
    ]
    seconds = time.perf_counter() - start
    whole = train.sample_ids(np.arange(consumed, consumed + ranks * MICRO_BATCH))
    assert np.concatenate(ids).tolist() == whole.tolist()
    assert len(set(whole.tolist())) == ranks * MICRO_BATCH
    return {
        f"{ranks:,} ranks agree on {ranks * MICRO_BATCH:,} samples: plan of one rank, ms": (
            1e3 * seconds / ranks
        )
    }


def in_own_process(part: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", str(folder), "--part", part]
    command += ["--shards", str(options.shards), "--corpora", str(options.corpora)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--corpora", type=int, default=500)
    parser.add_argument("--part", choices=["floor", "built", "kept", "ranks"])
    options = parser.parse_args()
    folder, size = options.folder, (options.shards, options.corpora)
    if options.part is not None:
        parts = {
            "floor": lambda: floor(folder),
            "built": lambda: start_up(folder, *size, None),
            "kept": lambda: start_up(folder, *size, folder / "kept"),
            "ranks": lambda: ranks_agree(folder, *size),
        }
        print(json.dumps(parts[options.part]()))
        return
    write_shards(folder, *size)
    columns = {
        name: in_own_process(part, folder, options)
        for name, part in [
            ("floor", "floor"), ("built", "built"), ("kept first", "kept"), ("kept", "kept"),
            ("ranks", "ranks"),
        ]
    }  # fmt: skip
    tokens = options.shards * DOCUMENTS * DOCUMENT_TOKENS
    print(f"{options.shards:,} shards, {options.corpora} corpora, {tokens:.3g} tokens\n")
    print("| | catalog built | catalog kept before |\n|---|---|---|")
    for name in columns["built"]:
        print(f"| {name} | {columns['built'][name]:.3g} | {columns['kept'][name]:.3g} |")
    for name, value in (columns["floor"] | columns["ranks"]).items():
        print(f"| {name} | {value:.3g} | |")


if __name__ == "__main__":
    main()
