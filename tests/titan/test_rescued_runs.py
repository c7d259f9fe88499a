"""Runs that another loader fed, placed in an order of ours and trained on."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from tests.original_cases import recorded
from tests.small_corpora import VOCAB_SIZE
from tests.test_docs import ROOT, commands_shown
from tests.titan.conftest import Job, small_job
from tests.titan.test_hf_assets import write_tokenizer
from tests.titan.test_original_order import CASE, settings_of

pytestmark = pytest.mark.slow

MODEL_VOCAB_SIZE = 5056
"""Of the recorded tokens of the original."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Path:
    """Six steps with TorchTitan's own loader, whose states are under other keys."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "text").mkdir()
    write_tokenizer(folder)
    document = " ".join(f"w{token}" for token in range(3, VOCAB_SIZE))
    lines = [json.dumps({"text": document})] * 100
    (folder / "text/train.jsonl").write_text("\n".join(lines))
    job = small_job(folder, tokenizer_path)
    del job.settings["blendcorpus"]
    job.settings["model"] = {"hf_assets_path": str(folder), "vocab_size": MODEL_VOCAB_SIZE}
    job.settings["checkpoint"]["interval"] = 6
    job.run("--training.dataset", "c4_test", "--training.dataset_path", str(folder / "text"))
    return folder / "out/checkpoint/step-6"


def test_a_rescued_run_reads_exactly_the_samples_that_were_never_read(
    job: Job, checkpoint: Path
) -> None:
    """Six steps in three legs, and three more.

    Legs of 2, 1 and 3 steps read 12 samples of the order at most. ``step * global_batch_size``
    would be 24, and would leave 12 samples out.
    """
    saving = job.settings["checkpoint"]
    job.settings = settings_of(job) | {"checkpoint": saving, "validation": {"enable": False}}
    job.settings["blendcorpus"] |= {"tokenizer_check": "warn", "train_samples": 200}
    legs = ["0-2", "2-3", "3-6", "--config", str(job.write_toml())]
    copy = ["--checkpoint", str(checkpoint), "--output", str(job.folder / "out/checkpoint")]
    assert main(["rescue", *legs, *copy]) == 0
    output = job.run("--training.steps", "9")
    rows = recorded(CASE)["train"][12:24, 1:].astype(np.int64)
    read = job.samples_of_ranks()

    assert sorted(read) == [7, 8, 9]
    assert [digest for step in (7, 8, 9) for digest in read[step][0]] == [
        hashlib.sha256(row.tobytes()).hexdigest() for row in rows
    ]
    assert "contains no data loader state" not in output


def test_the_command_of_the_page_continues_a_run_from_a_stated_sample(
    job: Job, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: from the beginning of the order, then from the checkpoint saved after that."""
    monkeypatch.chdir(job.folder)
    shutil.copytree(checkpoint, "theirs/checkpoint/step-6")
    job.settings["job"] = {"dump_folder": str(job.folder / "outputs")}
    job.settings["model"]["vocab_size"] = MODEL_VOCAB_SIZE
    job.write_toml()
    ((program, *words),) = commands_shown(ROOT / "docs/moving-from-torchtitan.md")
    assert program == "blendtitan"
    assert main(words) == 0
    output = job.run("--training.steps", "8")
    assert job.samples() == {7: job.samples_at(range(4)), 8: job.samples_at(range(4, 8))}
    assert "contains no data loader state" not in output

    job.run("--training.steps", "9")
    assert job.samples() == {9: job.samples_at(range(8, 12))}
    assert main(["audit", "outputs"]) == 0
