"""Checkpoints that are incomplete, damaged or in the way of a run that went back."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.training import FaultyJob, faulty_job
from tests.titan.conftest import tokenizer_path

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> FaultyJob:
    """Four steps, of which the second and the fourth were saved."""
    job = faulty_job(tmp_path_factory.mktemp("saved"), tokenizer_path)
    job.settings["training"]["steps"] = 4
    job.end()
    return job


@pytest.fixture
def job(saved: FaultyJob, tmp_path: Path) -> FaultyJob:
    """The run that goes on from a copy of it."""
    ignore = shutil.ignore_patterns("record_*")
    shutil.copytree(saved.folder, tmp_path / "copy", ignore=ignore)
    settings = {name: dict(section) for name, section in saved.settings.items()}
    settings["job"]["dump_folder"] = str(tmp_path / "copy/out")
    settings["training"]["steps"] = 5
    return FaultyJob(tmp_path / "copy", settings)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "tensors_cut": (lambda p: cut(p / "__0_0.distcp"), r"__0_0.distcp: found "),
    "tensors_gone": (lambda p: (p / "__0_0.distcp").unlink(), r"__0_0.distcp: found 0 bytes"),
    "metadata_cut": (lambda p: cut(p / ".metadata"), ".metadata: cannot be read"),
    "metadata_empty": (lambda p: os.truncate(p / ".metadata", 0), ".metadata: cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_with_the_way_out(job: FaultyJob, damage: str) -> None:
    """Going on from an older one is for people to decide."""
    do_damage, message = DAMAGES[damage]
    do_damage(job.checkpoints / "step-4")
    output = job.break_down()

    assert message in output
    assert "or move the folder away: the run then goes on from the checkpoint before it." in output


def test_after_a_damaged_checkpoint_was_moved_away_the_one_before_is_used(
    saved: FaultyJob, job: FaultyJob, tmp_path: Path
) -> None:
    (job.checkpoints / "step-4").rename(tmp_path / "step-4")
    job.end()

    assert job.losses("training").keys() == {3, 4, 5}
    assert saved.losses("training").items() >= {(n, job.losses("training")[n]) for n in (3, 4)}


def test_an_incomplete_checkpoint_is_passed_over_and_named(job: FaultyJob) -> None:
    (job.checkpoints / "step-4/.metadata").unlink()
    output = job.end()

    assert output.count("step-4: is incomplete") == 1
    assert min(job.steps_begun()) == 3
    assert job.complete_steps() == [2, 4, 5]


def test_a_run_that_went_back_keeps_what_it_saves(job: FaultyJob) -> None:
    """Those of later steps would be counted as the latest, and the new ones be deleted."""
    job.settings["checkpoint"] |= {"keep_latest_k": 2, "interval": 1, "load_step": 2}
    (job.checkpoints / "step-9").mkdir()
    shutil.copytree(job.checkpoints / "step-4", job.checkpoints / "step-8")
    job.end()

    assert job.complete_steps() == [3, 4, 5, 8]
