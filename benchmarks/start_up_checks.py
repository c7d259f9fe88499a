"""Catalog of 2,419 shards: with the checks of how documents end, and before them.

    python benchmarks/start_up_checks.py --folder FOLDER --before OLD/src [--documents 10]

``OLD`` is a checkout of the commit to compare with. Every run is a process of its own; the runs of
the columns alternate. Prints the raw times in ms and one Markdown table.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SHARDS, CORPORA, EOD = 2419, 10, 0
RUNS = 7
NOW = str(Path(__file__).parents[1] / "src")


def write_shards(folder: Path, documents: int) -> None:
    """Real shards of documents of 200 to 2,000 tokens that end in EOD, unless they are there."""
    from blendtitan.storage.writer import encode_index

    if (folder / "list.txt").exists():
        return
    rng = np.random.default_rng(1)
    lens = rng.integers(200, 2000, documents).astype(np.int32)
    tokens = rng.integers(1, 50_000, int(lens.sum())).astype("<u2")
    tokens[np.cumsum(lens) - 1] = EOD
    index = b"".join(encode_index(lens, dtype=tokens.dtype))
    lines: list[str] = []
    for shard in range(SHARDS):
        corpus = f"corpus_{shard % CORPORA:03}"
        prefix = folder / corpus / f"part_{shard:06}"
        prefix.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{prefix}.bin").write_bytes(tokens.tobytes())
        Path(f"{prefix}.idx").write_bytes(index)
        lines.append(f"{1 + shard % 7} {prefix.relative_to(folder)} {corpus}")
    (folder / "list.txt").write_text("\n".join(lines))


def record_all(folder: Path) -> None:
    from blendtitan.storage.record_writer import record_ends

    for index in folder.glob("*/*.idx"):
        assert record_ends(index.with_suffix(""), EOD)


def catalog_seconds(folder: Path, kept: Path | None) -> float:
    from blendtitan import BlendConfig
    from blendtitan.dataset.build import read_catalog

    config = BlendConfig(
        data_file_list=folder / "list.txt", seq_length=4096, eod_token_id=EOD, data_cache_path=kept
    )
    gc.collect()
    start = time.perf_counter()
    read_catalog(config)
    return time.perf_counter() - start


def in_own_process(source: str, *arguments: str) -> float:
    command = [sys.executable, __file__, *arguments]
    environment = os.environ | {"PYTHONPATH": source}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return 1e3 * json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--before", default=NOW)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--time", action="store_true", help="measure once, in this process")
    options = parser.parse_args()
    folder = options.folder
    if options.time:
        print(catalog_seconds(folder, options.kept))
        return
    for name in ("without", "with"):
        write_shards(folder / name, options.documents)
    record_all(folder / "with")
    columns: dict[str, list[float]] = {}
    for run in range(RUNS + 1):
        for name, source, shards, kept in [
            ("before, built", options.before, "without", ""),
            ("now, built, no records", NOW, "without", ""),
            ("now, built, records", NOW, "with", ""),
            ("before, kept", options.before, "without", "kept_before"),
            ("now, kept", NOW, "with", "kept_now"),
        ]:
            once = ["--time", "--folder", str(folder / shards)]
            time_ms = in_own_process(source, *once, *(["--kept", f"{folder / kept}"] * bool(kept)))
            if run:  # The first run fills caches and keeps catalogs.
                columns.setdefault(name, []).append(time_ms)
    print(f"{SHARDS:,} shards of {options.documents:,} documents, ms\n")
    print("| | smallest | median | largest | all runs, in order |\n|---|---|---|---|---|")
    for name, times in columns.items():
        middle = statistics.median(times)
        runs = ", ".join(f"{t:.0f}" for t in times)
        print(f"| {name} | {min(times):.0f} | {middle:.0f} | {max(times):.0f} | {runs} |")


if __name__ == "__main__":
    main()
