"""Memory does not grow with the input."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from blendtitan.prepare.demo import code_texts
from blendtitan.prepare.streams import zstd

MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture(scope="module")
def lines() -> bytes:
    """Documents of real text: some 11 MB."""
    return b"".join(orjson.dumps({"text": text}) + b"\n" for text in code_texts())


def peak_kib(text: Path, tokenizer_path: Path, output: Path) -> int:
    """Most memory that the command, or its largest worker, occupied."""
    command = [
        *(sys.executable, "-m", "blendtitan.cli", "tokenize", str(text), "--output", str(output)),
        # One tier, whatever the size: little text would use the other one.
        *("--tokenizer", str(tokenizer_path), "--tokenizer-tier", "fast", "--workers", "1"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst"])
def test_memory_does_not_grow_with_the_input(
    tokenizer_path: Path, tmp_path: Path, lines: bytes, kind: str
) -> None:
    """Eight times the text, as a plain file in jobs and as one compressed stream."""
    peaks: list[int] = []
    for name, repeats in (("small", 1), ("large", 8)):
        content = lines * repeats
        path = tmp_path / f"{name}.{kind}"
        path.write_bytes(zstd.compress(content) if kind.endswith("zst") else content)
        peaks.append(peak_kib(path, tokenizer_path, tmp_path / name))
    small, large = peaks

    # Eight bytes a document would be 0.2 MB; the rest is what allocators keep.
    assert large - small < 40 << 10
