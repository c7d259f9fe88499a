"""Snippets that are parts of a program: each runs with what the page says it is given."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from blendtitan import DataLoader, build_datasets
from tests.conftest import WriteBlend
from tests.test_docs import ROOT, code_blocks


@pytest.fixture
def loader(write_blend: WriteBlend) -> DataLoader:
    """A loader that has delivered nothing yet."""
    config = write_blend({"web": (1.0, [500])}, seq_length=8)
    return DataLoader(build_datasets(config).train, micro_batch_size=2)


def test_the_example_of_the_page_on_resuming(loader: DataLoader) -> None:
    """A place set by hand in a trainer and in a loop, and the state of a loop."""
    by_trainer, by_loop, in_loop = code_blocks(ROOT / "docs/resume.md", "python")
    trainer = SimpleNamespace(dataloader=loader, train=lambda: None)
    exec(by_trainer, {"trainer": trainer, "step": 3, "global_batch_size": 4})

    assert loader.consumed_samples == 12
    exec(by_loop, {"loader": loader, "step": 5, "global_batch_size": 4})
    assert loader.consumed_samples == 20
    exec(in_loop, {"loader": loader})
    assert loader.consumed_samples == 20


def test_the_page_on_moving_a_run_shows_the_original(
    loader: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place of a run, and the rows that the original is asked to write down."""
    by_loop, rows, _ = code_blocks(ROOT / "docs/moving-from-blendcorpus.md", "python")
    original = [{"text": np.full(3, slot)} for slot in range(100)]
    monkeypatch.chdir(tmp_path)
    exec(by_loop, {"loader": loader, "step": 5, "global_batch_size": 4})
    exec(rows, {"train_dataset": original, "consumed": loader.consumed_samples, "np": np})

    assert np.load("original_rows.npy")[:, 0].tolist() == list(range(20, 84))
