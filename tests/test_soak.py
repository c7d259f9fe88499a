"""The short form of ``benchmarks/soak.py``, which sends a million batches through the loader."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/soak.py"


@pytest.mark.slow
@pytest.mark.long
def test_memory_and_open_files_stay_flat() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--batches", "20000"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 20,000 |" in done.stdout


@pytest.mark.parametrize(
    ("bytes_each", "files_each", "found"),
    [
        (0, 0.0, []),
        (200_000, 0.0, ["memory grew by 8,200,000 bytes"]),
        (0, 0.1, ["open files grew to 78"]),
    ],
)
def test_growth_is_detected(bytes_each: int, files_each: float, found: list[str]) -> None:
    script = runpy.run_path(str(SCRIPT))
    samples = [
        script["Sample"](i, i, 10**8 + i * bytes_each, int(69 + i * files_each)) for i in range(100)
    ]

    assert script["growth"](samples) == found
