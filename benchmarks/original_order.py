"""How long the index of the original's order takes to build, to check, and to read samples by.

Usage: PYTHONPATH=src python benchmarks/original_order.py FOLDER [SAMPLES]

Writes 100 shards of 200,000 documents to FOLDER (400 MB of .idx; the .bin files are sparse), then
builds the index of SAMPLES (10,000,000) samples of 2,049 tokens for several layouts of corpora,
each in a process of its own, with the compilation of the loops. Prints a Markdown table. "CPU" is
processor time of all threads, user and system: on cores that nothing else uses, less time than that
passes, as no thread waits for more than the page cache.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from blendtitan import BlendConfig, build_datasets
from blendtitan.dataset.build import read_catalog
from blendtitan.original.build import original_indices
from blendtitan.storage.writer import encode_index

SHARDS, DOCUMENTS, MEAN_LEN, SEQ_LEN = 100, 200_000, 1000, 2048
READS = 2048

# Corpora, and whether their shards are blended.
LAYOUTS = [(1, True), (10, True), (100, True), (10, False)]


def write_shards(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        lens = np.random.default_rng(shard).integers(100, 2 * MEAN_LEN - 100, DOCUMENTS)
        with open(folder / f"s{shard}.idx", "wb") as file:
            file.writelines(encode_index(lens.astype(np.int32), dtype=np.dtype("<u2")))
        with open(folder / f"s{shard}.bin", "wb") as file:
            file.truncate(2 * int(lens.sum()))


def measure(folder: Path, num_corpora: int, blend: bool, samples: int) -> dict[str, float]:
    """Seconds and megabytes of one layout, in this process."""
    weights = np.random.default_rng(1).uniform(0.5, 1.5, SHARDS)
    lines = [f"{weights[i]} s{i} corpus_{i % num_corpora:03d}" for i in range(SHARDS)]
    (folder / "list.txt").write_text("\n".join(lines))
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    config = BlendConfig(
        data_file_list=folder / "list.txt",
        seq_length=SEQ_LEN,
        append_eod=False,
        split="100,0,0",
        order="blendcorpus",
        blend_sample_in_corpus=blend,
        train_samples=samples,
        eval_samples=0,
        data_cache_path=cache,
    )
    catalog = read_catalog(config)
    times = {}
    for name in ("build", "check"):
        start, start_cpu = time.perf_counter(), time.process_time()
        indices = original_indices(config, catalog)
        times[name] = time.perf_counter() - start
        times[f"{name}_cpu"] = time.process_time() - start_cpu
    times["size"] = sum(file.stat().st_size for file in cache.glob("order-*")) / 1e6
    times["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    dataset = build_datasets(config, catalog, indices).train
    assert dataset is not None
    slots = samples // 2 + np.arange(READS)
    for _ in range(2):  # the second time from the page cache
        start = time.perf_counter()
        plan = dataset.plan(slots)
        times["plan"] = (time.perf_counter() - start) / READS * 1e6
        start = time.perf_counter()
        dataset.read(plan, 0, READS)
        times["read"] = (time.perf_counter() - start) / READS * 1e6
    return times


def main() -> None:
    folder = Path(sys.argv[1])
    samples = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    if len(sys.argv) > 3:
        layout = measure(folder, int(sys.argv[3]), sys.argv[4] == "True", samples)
        print(json.dumps(layout))
        return
    if not (folder / f"s{SHARDS - 1}.bin").exists():
        write_shards(folder)
    print(
        "| corpora | shards blended | build, CPU s | build, s | check, CPU s | check, s "
        "| index, MB | peak memory, MB | plan, us per sample | read, us per sample |"
    )
    print("|---" * 10 + "|")
    for layout in LAYOUTS:
        command = [sys.executable, __file__, str(folder), str(samples), *map(str, layout)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        t = json.loads(done.stdout)
        print(
            f"| {layout[0]} | {layout[1]} | {t['build_cpu']:.1f} | {t['build']:.1f} | "
            f"{t['check_cpu']:.2f} | {t['check']:.2f} | {t['size']:.0f} | {t['peak']:.0f} | "
            f"{t['plan']:.1f} | {t['read']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
