"""A run of the original that is rescued and trained on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from blendtitan.cli import main
from tests.original_cases import recorded
from tests.small_corpora import VOCAB_SIZE
from tests.titan.conftest import Job
from tests.titan.test_hf_assets import write_tokenizer
from tests.titan.test_original_order import CASE, settings_of

pytestmark = pytest.mark.slow


def test_a_rescued_run_reads_exactly_the_samples_that_were_never_read(
    job: Job, tmp_path: Path
) -> None:
    """Six steps in three legs, whose checkpoint has another loader's state, and three more.

    Legs of 2, 1 and 3 steps read 12 samples of the order at most. ``step * global_batch_size``
    would be 24, and would leave 12 samples out.
    """
    assets, text = tmp_path / "assets", tmp_path / "text"
    assets.mkdir()
    text.mkdir()
    write_tokenizer(assets)
    document = " ".join(f"w{token}" for token in range(3, VOCAB_SIZE))
    (text / "train.jsonl").write_text("\n".join([json.dumps({"text": document})] * 100))
    saving = job.settings["checkpoint"]
    job.settings = settings_of(job) | {"checkpoint": saving | {"interval": 6}}
    job.settings["model"] = {"hf_assets_path": str(assets), "vocab_size": 5056}
    job.settings["validation"] = {"enable": False}
    blend = job.settings.pop("blendcorpus")
    own = ["--training.dataset", "c4_test", "--training.dataset_path", str(text)]
    job.run("--training.steps", "6", *own)
    job.settings["blendcorpus"] = blend | {"tokenizer_check": "warn", "train_samples": 200}
    legs = ["0-2", "2-3", "3-6", "--config", str(job.write_toml())]
    copy = ["--checkpoint", str(job.folder / "out/checkpoint/step-6")]
    assert main(["rescue", *legs, *copy, "--output", str(job.folder / "rescued/checkpoint")]) == 0
    continued = ["--job.dump_folder", str(job.folder / "rescued"), "--training.steps", "9"]
    output = job.run(*continued)
    rows = recorded(CASE)["train"][12:24, 1:].astype(np.int64)
    read = job.samples_of_ranks()

    assert sorted(read) == [7, 8, 9]
    assert [digest for step in (7, 8, 9) for digest in read[step][0]] == [
        hashlib.sha256(row.tobytes()).hexdigest() for row in rows
    ]
    assert "contains no data loader state" not in output
