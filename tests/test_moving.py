"""The page on moving a run from the original: what it shows is what the original read."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.original_cases import FOLDER, recorded
from tests.test_docs import ROOT, code_blocks

PAGE = ROOT / "docs/moving-from-blendcorpus.md"
CASE = "with_validation"


def test_the_comparison_of_the_page_runs_and_finds_a_difference(tmp_path: Path) -> None:
    """On the rows that the original read from its step 17 on, and on others."""
    *_, snippet = code_blocks(PAGE, "python")
    shutil.copytree(FOLDER / CASE, tmp_path, dirs_exist_ok=True)
    rows = recorded(CASE)["train"][17 * 4 :][:64]
    outputs = []
    for saved in (rows, rows[::-1]):
        np.save(tmp_path / "original_rows.npy", saved)
        command = [sys.executable, "-c", snippet]
        outputs.append(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True))

    assert outputs[0].stdout == "all samples from 68 on are the original's\n", outputs[0].stderr
    assert "AssertionError: slot 68: " in outputs[1].stderr
