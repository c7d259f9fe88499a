"""Training killed at random moments and started again, against a run that was left alone."""

import logging
import random
import shutil
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch

from tests.faults.killing import num_kills
from tests.faults.training import FaultyJob, kill, wait_for
from tests.titan.conftest import small_job, tokenizer_path
from tests.titan.launched import Launched

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow

STEPS = 3 * num_kills(2) + 4
VALIDATE_EVERY = 3
MOMENTS = ("step", "checkpoint", "start", "validation")

logger = logging.getLogger(__name__)


def endurance_job(folder: Path, tokenizer_path: Path) -> FaultyJob:
    folder.mkdir()
    job = small_job(folder, tokenizer_path)
    job.settings["training"]["steps"] = STEPS
    job.settings["lr_scheduler"]["total_steps"] = STEPS
    job.settings["blendcorpus"]["max_epochs"] = 0
    job.settings["checkpoint"]["keep_latest_k"] = 2
    job.settings["validation"] = {"enable": True, "freq": VALIDATE_EVERY, "samples": 4}
    return FaultyJob(job.folder, job.settings)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> dict[int, FaultyJob]:
    """Runs that were left alone, on one process and on two."""
    folder = tmp_path_factory.mktemp("whole")
    jobs = {n: endurance_job(folder / str(n), tokenizer_path) for n in (1, 2)}
    for processes, job in jobs.items():
        job.run(processes=processes)
    return jobs


@pytest.mark.parametrize(
    ("processes", "kills", "moments", "async_modes"),
    [
        pytest.param(1, 2, MOMENTS, ["disabled"], id="one_process"),
        pytest.param(2, 2, MOMENTS, ["disabled"], id="two_processes"),
        pytest.param(2, 1, ["checkpoint"], ["async", "disabled"], id="while_it_saves"),
    ],
)
def test_killed_training_resumes_bit_for_bit_from_the_last_complete_checkpoint(
    *,
    processes: int,
    kills: int,
    moments: list[str],
    async_modes: list[str],
    wholes: dict[int, FaultyJob],
    tokenizer_path: Path,
    tmp_path: Path,
) -> None:
    """Losses and samples of every step, and all that the last checkpoint holds."""
    whole = wholes[processes]
    job = endurance_job(tmp_path / "killed", tokenizer_path)
    rng = random.Random(5)
    struck: Counter[str] = Counter()
    modes = cycle(async_modes)
    for moment in islice(cycle(moments), num_kills(kills)):
        saved = max(job.complete_steps(), default=0)
        run = job.launch("--checkpoint.async_mode", next(modes), processes=processes)
        # Before, a rank is not known, and would be left when all are killed.
        wait_for(lambda: len(job.pids()) == processes, run)
        wait_for_moment(moment, job, run, rng)
        kill(job, run, rng.choice([None, *range(processes)] if processes > 1 else [None]))
        struck[place(job, run)] += 1
        check(job, whole, saved)
        if job.complete_steps()[-1:] == [STEPS]:
            shutil.rmtree(job.checkpoints)
    saved = max(job.complete_steps(), default=0)
    job.run(processes=processes)
    logger.info("%d processes were killed: %s", processes, dict(struck))

    check(job, whole, saved)
    assert job.losses("training").keys() == set(range(saved + 1, STEPS + 1))
    # A kill between a save and the deletions after it leaves older ones.
    assert job.complete_steps()[-2:] == whole.complete_steps()[-2:]
    state, expected = job.state(STEPS), whole.state(STEPS)
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        is_same = (
            torch.equal(state[name], value)
            if isinstance(value, torch.Tensor)
            else state[name] == value
        )
        assert is_same, name


def wait_for_moment(moment: str, job: FaultyJob, run: Launched, rng: random.Random) -> None:
    """Wait until a kill at this kind of moment is due."""
    saved = max(job.complete_steps(), default=0)
    if moment == "start":
        time.sleep(rng.uniform(0, 0.8))
    elif moment == "step":
        step = saved + rng.randint(1, 5)
        wait_for(lambda: step in job.steps_begun(), run)
        time.sleep(rng.uniform(0, 0.15))
    elif moment == "checkpoint":
        count = rng.randint(1, 3)
        wait_for(lambda: run.output.count("ing the checkpoint.") >= count, run)
        time.sleep(rng.uniform(0, 0.2))
    elif moment == "validation":
        step = saved + VALIDATE_EVERY - saved % VALIDATE_EVERY
        wait_for(lambda: step in job.losses("training"), run)
        time.sleep(rng.uniform(0, 0.3))


def place(job: FaultyJob, run: Launched) -> str:
    """What the run did when it was killed."""
    steps = job.steps_begun()
    if not steps:
        return "start"
    last = max(steps)
    if any(int(folder.name[5:]) > last - 2 for folder in job.incomplete()):
        return "checkpoint"
    if last in job.losses("training") and last % VALIDATE_EVERY == 0:
        return "after validation" if last in job.losses("validation") else "validation"
    return "end" if "Training completed" in run.output else "step"


def check(job: FaultyJob, whole: FaultyJob, saved: int) -> None:
    """Check that the last run went on from a checkpoint and did what the whole one did."""
    for kind in ("training", "validation"):
        assert job.losses(kind).items() <= whole.losses(kind).items()
    if steps := job.steps_begun():
        assert min(steps) == saved + 1
    expected = whole.samples_of_ranks()
    for step, of_rank in job.samples_of_ranks().items():
        for rank, digests in of_rank.items():
            assert digests == expected[step][rank][: len(digests)]
