"""How long ``blendtitan find`` takes, by the number of documents.

    python benchmarks/find_documents.py FOLDER [--shards 100]

FOLDER gets shards of a million documents each: complete ``.idx`` and ``.docs.parquet`` files with
the URLs of 50,000 sites, and ``.bin`` files that are holes. The command is a process of its own.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blendtitan.document_sources import SourceWriter, one_input, source_rows
from blendtitan.storage.index_arrays import encode_index
from blendtitan.storage.writer import DOCS_SUFFIX

DOCUMENTS, SITES, DOCUMENT_TOKENS = 1_000_000, 50_000, 500
CONDITIONS = {
    "one site": "url LIKE '%//site-123.example.org/%'",
    "a sixth of all": "url LIKE '%/2026/11/%' OR url LIKE '%/2026/12/%'",
    "one input": "input = 'part-0.jsonl' AND row < 1000",
}


def write_shard(prefix: Path, number: int) -> None:
    """A shard, the ``.idx`` last."""
    if Path(f"{prefix}.idx").exists():
        return
    generator = np.random.default_rng(number)
    sites = (SITES * generator.random(DOCUMENTS) ** 3).astype(int)  # some have many pages
    words = [
        pa.array(sites).cast(pa.string()),
        pa.array(generator.integers(1, 13, DOCUMENTS)).cast(pa.string()),
        pa.array(generator.integers(1, 10**9, DOCUMENTS)).cast(pa.string()),
    ]
    urls = pc.binary_join_element_wise(
        "https://site-", words[0], ".example.org/2026/", words[1], "/article-", words[2], ""
    )
    rows = source_rows(
        one_input(f"part-{number}.jsonl", DOCUMENTS),
        {"url": urls},
        places=pa.array(np.arange(DOCUMENTS)),
    )
    with open(f"{prefix}{DOCS_SUFFIX}", "wb") as file, SourceWriter(file, ["url"]) as writer:
        writer.write(rows)
    with open(f"{prefix}.bin", "wb") as file:
        file.truncate(DOCUMENTS * DOCUMENT_TOKENS * 2)
    lens = np.full(DOCUMENTS, DOCUMENT_TOKENS, np.int32)
    with open(f"{prefix}.idx", "wb") as file:
        file.writelines(encode_index(lens, dtype=np.dtype("<u2")))


def find(prefixes: list[Path], condition: str, output: Path) -> tuple[float, float, int, int]:
    """Seconds by the clock and of the processor, the most memory, and documents found."""
    command = [sys.executable, "-m", "blendtitan", "find", *map(str, prefixes)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--where", condition, "--limit", "1", "--output", output, "--overwrite"],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"blendtitan find ended with status {status}")
    with output.open("rb") as file:
        found = sum(1 for _ in file) - 1
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, found


def main() -> None:
    """Print the time and memory of each condition, with 1, 10 and 100 shards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=100)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    prefixes = [options.folder / f"shard_{number}" for number in range(options.shards)]
    for number, prefix in enumerate(prefixes):
        write_shard(prefix, number)
    sources = [Path(f"{prefix}{DOCS_SUFFIX}") for prefix in prefixes]
    num_bytes = sum(path.stat().st_size for path in sources) / len(prefixes) / DOCUMENTS
    print(f"{num_bytes:.1f} bytes of {DOCS_SUFFIX} for each document\n")
    print("| documents | condition | found | seconds | of the processor | memory, MB |")
    print("|---|---|---|---|---|---|")
    for count in (1, 10, 100):
        if count <= len(prefixes):
            for name, condition in CONDITIONS.items():
                output = options.folder / "found.txt"
                seconds, busy, kilobytes, found = find(prefixes[:count], condition, output)
                print(
                    f"| {count * DOCUMENTS:,} | {name} | {found:,} | {seconds:.1f} | {busy:.1f} | "
                    f"{kilobytes / 1e3:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
