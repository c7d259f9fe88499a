"""The short form of ``benchmarks/soak.py``, which sends a million batches through the loader."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/soak.py"


@pytest.mark.slow
def test_memory_and_open_files_stay_flat() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--batches", "20000"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 20,000 |" in done.stdout
