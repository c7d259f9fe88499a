"""How fast ``blendtitan index`` reads, beside a plain read of the same bytes.

    python benchmarks/index.py FOLDER [--gigabytes 4] [--files 4]

FOLDER gets files of random ids with documents of about 700 tokens. Plain reads and the command take
turns, so that both meet the same load of the machine. Figures are medians of several runs: with the
files in the page cache, and with the cache emptied of them before each run. Those of the processor
count its time only, however long the machine let the process wait.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from blendtitan.shards.index import index, plan_index
from blendtitan.shards.index_documents import IndexSettings

EOD = 2
DOCUMENT_TOKENS = 700
BLOCK_BYTES = 1 << 20
DTYPES = {"uint16": "<u2", "uint32": "<u4"}


def write_files(folder: Path, *, num_bytes: int, num_files: int, dtype: str) -> list[Path]:
    """Files of random ids below 50,000, each a repeated block."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    block = generator.integers(3, 50_000, (1 << 24) // np.dtype(DTYPES[dtype]).itemsize)
    block[generator.random(len(block)) < 1 / DOCUMENT_TOKENS] = EOD
    content = block.astype(DTYPES[dtype]).tobytes()
    paths = [folder / f"{number:05d}.npy" for number in range(num_files)]
    for path in paths:
        with path.open("wb") as file:
            for _ in range(num_bytes // num_files // len(content)):
                file.write(content)
            os.fsync(file.fileno())
    return paths


def read_plainly(paths: list[Path], threads: int) -> None:
    def read(path: Path) -> None:
        buffer = bytearray(BLOCK_BYTES)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, paths))


def index_files(paths: list[Path], output: Path, dtype: str, threads: int) -> None:
    settings = IndexSettings(eod_id=EOD, dtype=dtype, vocab_size=50_000)
    planned = plan_index(paths, output, settings, overwrite=True)
    for file in index(planned, settings, threads=threads):
        assert file.error is None, file.error


def forget(paths: list[Path]) -> None:
    """Drop the files from the page cache."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def gigabytes_per_second(
    runs: list[Callable[[], None]], paths: list[Path], *, is_cached: bool, rounds: int
) -> list[tuple[float, float]]:
    """Of each run, by the clock and by the processor's time."""
    seconds: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, measured in zip(runs, seconds, strict=True):
            if not is_cached:
                forget(paths)
            begin, begin_cpu = time.perf_counter(), time.process_time()
            run()
            measured.append((time.perf_counter() - begin, time.process_time() - begin_cpu))
    gigabytes = sum(path.stat().st_size for path in paths) / 1e9
    return [
        (gigabytes / statistics.median(clock), gigabytes / statistics.median(cpu))
        for clock, cpu in (zip(*measured, strict=True) for measured in seconds)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = ("tokens", "threads", "cached", "plain read, GB/s", "index, GB/s", "ratio")
    print("|", " | ".join((*names, "plain read, processor", "index, processor")), "|")
    print("|---" * (len(names) + 2) + "|")
    for dtype in DTYPES:
        paths = write_files(
            options.folder / dtype,
            num_bytes=int(options.gigabytes * 1e9),
            num_files=options.files,
            dtype=dtype,
        )
        output = options.folder / "index" / dtype
        for threads in (1, os.cpu_count() or 1):
            for is_cached in (True, False):
                (plain, plain_cpu), (ours, ours_cpu) = gigabytes_per_second(
                    [
                        partial(read_plainly, paths, threads),
                        partial(index_files, paths, output, dtype, threads),
                    ],
                    paths,
                    is_cached=is_cached,
                    rounds=options.rounds,
                )
                cached = "yes" if is_cached else "no"
                cells = [f"{plain:.2f}", f"{ours:.2f}", f"{ours / plain:.2f}"]
                cells += [f"{plain_cpu:.1f}", f"{ours_cpu:.1f}"]
                print("|", " | ".join([dtype, str(threads), cached, *cells]), "|", flush=True)
        for path in paths:
            path.unlink()


if __name__ == "__main__":
    main()
