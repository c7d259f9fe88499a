"""``[[training.batch_schedule]]`` in a real run that is killed and started again."""

import json
from pathlib import Path

import pytest

from blendtitan.cli import main
from tests.faults.training import FaultyJob, faulty_job, kill, wait_for
from tests.titan.conftest import tokenizer_path

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow

SLOTS = [range(4), range(4, 8), range(8, 16), range(16, 24), range(24, 32), range(32, 34)]
SLOTS += [range(34 + 2 * n, 36 + 2 * n) for n in range(4)]
"""Of each step: 4 samples, 8 after step 2, and 2 after 1,000 tokens, which are 32 samples."""


def scheduled_job(folder: Path, tokenizer_path: Path) -> FaultyJob:
    folder.mkdir()
    job = faulty_job(folder, tokenizer_path)
    job.settings["training"] |= {
        "steps": len(SLOTS),
        "batch_schedule": [
            {"from_step": 2, "global_batch_size": 8},
            {"from_tokens": 1000, "global_batch_size": 2},
        ],
    }
    job.settings["blendcorpus"] |= {"max_epochs": 0, "segment": [segment(4)]}
    return job


def segment(step: int) -> dict[str, object]:
    return {"from_step": step, "shares": {"code": 1, "web": 0}}


def test_a_killed_run_equals_an_uninterrupted_one_and_its_tools_know_its_steps(
    tokenizer_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The segment begins at the first sample of step 5, which the schedule determines."""
    whole = scheduled_job(tmp_path / "whole", tokenizer_path)
    whole.run()
    job = scheduled_job(tmp_path / "killed", tokenizer_path)
    run = job.launch()
    wait_for(lambda: 5 in job.steps_begun(), run)
    kill(job, run, None)
    killed_at = job.complete_steps()[-1]
    job.run()

    assert [len(whole.samples()[step]) for step in whole.samples()] == [len(s) for s in SLOTS]
    assert all(whole.samples()[step] == whole.samples_at(SLOTS[step - 1]) for step in (3, 4))
    assert whole.samples()[5] != whole.samples_at(SLOTS[4]), "the segment has begun"
    later = {step: loss for step, loss in whole.losses("training").items() if step > killed_at}
    assert job.losses("training") == later
    assert all(job.samples()[step] == whole.samples()[step] for step in later)
    assert len(later) >= len(SLOTS) - 5
    out = str(job.folder / "out")
    assert main(["audit", out]) == 0
    assert main(["plan", out]) == 0
    assert "10 steps of 4, then 8, then 2 samples of 32 tokens: 42 samples" in (
        capsys.readouterr().out
    )
    assert main(["explain", out, "--step", "6", "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [sample["slot"] for sample in samples] == [*SLOTS[5]]
    assert main(["report", out, "--output", str(tmp_path / "page.html")]) == 0
    job.settings["training"]["batch_schedule"][0]["global_batch_size"] = 4
    error = job.fail("--training.steps", "12")
    assert "training.batch_schedule 1 sets 4 samples after step 2, but the checkpoint" in error
