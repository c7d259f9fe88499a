"""The page on moving a run from the original: what it shows is what the original read."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.original_cases import FOLDER, recorded
from tests.test_docs import ROOT, code_blocks

PAGE = ROOT / "docs/moving-from-blendcorpus.md"
CASE = "with_validation"


def test_the_comparison_of_the_page_runs_and_finds_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the rows that the original read from its step 17 on, and on others."""
    *_, snippet = code_blocks(PAGE, "python")
    shutil.copytree(FOLDER / CASE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    rows = recorded(CASE)["train"][17 * 4 :][:64]
    np.save("original_rows.npy", rows)
    exec(snippet, {})
    np.save("original_rows.npy", rows[::-1])

    assert capsys.readouterr().out == "all samples from 68 on are the original's\n"
    with pytest.raises(AssertionError, match="slot 68: "):
        exec(snippet, {})
