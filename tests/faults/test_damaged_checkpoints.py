"""Checkpoints that are incomplete, damaged or in the way of a run that went back."""

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.training import FaultyJob, faulty_job
from tests.titan.conftest import tokenizer_path

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> FaultyJob:
    """A run of four steps that saved the second and the fourth."""
    job = faulty_job(tmp_path_factory.mktemp("saved"), tokenizer_path)
    job.settings["training"]["steps"] = 4
    job.run()
    return job


@pytest.fixture
def job(saved: FaultyJob, tmp_path: Path) -> FaultyJob:
    """A run that resumes from a copy of it."""
    ignore = shutil.ignore_patterns("record_*")
    shutil.copytree(saved.folder, tmp_path / "copy", ignore=ignore)
    settings = {name: dict(section) for name, section in saved.settings.items()}
    settings["job"]["dump_folder"] = str(tmp_path / "copy/out")
    settings["training"]["steps"] = 5
    return FaultyJob(tmp_path / "copy", settings)


def test_a_damaged_checkpoint_ends_all_ranks_with_one_error_and_fallback_skips_it(
    saved: FaultyJob, job: FaultyJob
) -> None:
    """Resuming from an older one is for people to decide, before or after."""
    file = job.checkpoints / "step-4/__0_0.distcp"
    os.truncate(file, file.stat().st_size // 2)
    output = job.fail(processes=2)

    assert output.count("Cannot resume from ") == 1
    assert f"{file}: found " in output
    assert "set checkpoint.fallback = true to resume from step-2." in output
    assert "CheckpointException" not in output

    output = job.run("--checkpoint.fallback", "true")

    assert "Training resumes from step-2, because checkpoint.fallback is true." in output
    assert job.losses("training").keys() == {3, 4, 5}
    assert saved.losses("training").items() >= {(n, job.losses("training")[n]) for n in (3, 4)}
    assert job.complete_steps() == [2, 4, 5]


def test_after_a_damaged_checkpoint_was_moved_away_the_one_before_is_used(
    saved: FaultyJob, job: FaultyJob, tmp_path: Path
) -> None:
    (job.checkpoints / "step-4").rename(tmp_path / "step-4")
    job.run()

    assert job.losses("training").keys() == {3, 4, 5}
    assert saved.losses("training").items() >= {(n, job.losses("training")[n]) for n in (3, 4)}


def test_an_incomplete_checkpoint_is_skipped_and_named(job: FaultyJob) -> None:
    (job.checkpoints / "step-4/.metadata").unlink()
    output = job.run()

    assert output.count("step-4: is incomplete") == 1
    assert min(job.steps_begun()) == 3
    assert job.complete_steps() == [2, 4, 5]


def test_checkpoints_copied_without_hidden_files_do_not_begin_at_step_1(job: FaultyJob) -> None:
    for path in job.checkpoints.glob("step-*/.metadata"):
        path.unlink()
    output = job.fail()

    assert "found checkpoints of the steps 2, 4, none with its .metadata file" in output


def test_a_run_that_went_back_keeps_what_it_saves(job: FaultyJob) -> None:
    """Those of later steps would be counted as the latest, and the new ones be deleted."""
    job.settings["checkpoint"] |= {"keep_latest_k": 2, "interval": 1, "load_step": 2}
    (job.checkpoints / "step-9").mkdir()
    shutil.copytree(job.checkpoints / "step-4", job.checkpoints / "step-8")
    job.run()

    assert job.complete_steps() == [3, 4, 5, 8]
