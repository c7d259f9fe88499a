"""Replicas that are killed at random moments and start again, while the job trains."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from blendtitan.batch_schedule import schedule_of_state, slots_of
from blendtitan.metric_names import CORPUS_LOSS
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.runs.checkpoints import stored_states
from blendtitan.runs.scalars import read_scalars
from blendtitan.state import parse_state
from tests.faults.killing import num_kills
from tests.titan_ft.job import ReplicatedJob, kill, lighthouse, replicated_job, wait_for

pytestmark = pytest.mark.slow

REPLICAS = 3


@pytest.mark.parametrize(
    ("policy", "kills"),
    [
        ("same_batch", num_kills(3)),
        pytest.param("smaller_batch", num_kills(2), marks=pytest.mark.long),
    ],
)
def test_each_committed_slot_is_read_once_however_often_replicas_are_killed(
    policy: str, kills: int, tokenizer_path: Path, tmp_path: Path
) -> None:
    job = replicated_job(tmp_path, tokenizer_path, batch_policy=policy)
    if policy == "smaller_batch":
        job.settings["training"]["global_batch_size"] = 9
        job.write_toml()
    rng = random.Random(6)
    with lighthouse(job):
        # At the second step, the last one claims another state, as if it had committed alone.
        runs = [job.start(0), job.start(1), job.start(2, DIVERGE_AT="2")]
        wait_for(lambda: job.committed() >= 2, *runs)
        assert runs[2].output.count("continues with the state of another") == 2
        for _ in range(kills):
            victim = rng.randrange(REPLICAS)
            at = job.committed()
            wait_for(lambda at=at: job.committed() > at, *runs)
            time.sleep(rng.uniform(0, 0.3))
            kill(runs[victim])
            runs[victim] = job.start(victim)
            began = len(job.lines(victim))
            wait_for(lambda began=began, victim=victim: len(job.lines(victim)) > began + 1, *runs)
        steps = job.committed() + 8
        job.stop_at(steps)
        for run in runs:
            assert run.wait(240) == 0, run.output[-5000:]

    losses = check(job, steps, kills)
    if policy == "same_batch":
        assert losses == pytest.approx(losses_of_one_process(job, steps), rel=1e-3)
    else:
        assert losses[steps] < losses[1] - 0.5


def losses_of_one_process(job: ReplicatedJob, steps: int) -> dict[int, float]:
    """The losses of a run without replicas, which differ by the order of additions only."""
    out = job.folder / "plain"
    job.run("--fault_tolerance.no_enable", f"--job.dump_folder={out}", f"--training.steps={steps}")
    return job.losses("training")


def check(job: ReplicatedJob, steps: int, kills: int) -> dict[int, float]:
    """Check that each slot was read in one committed attempt; the loss of each step."""
    lines = [line for replica in range(REPLICAS) for line in job.lines(replica)]
    run_folder = Path(job.settings["job"]["dump_folder"])
    check_proved(audit_run(run_folder))
    last = stored_states(run_folder)[-1].state_dict
    assert last is not None
    schedule = schedule_of_state(last)
    parts = counted_attempts([line for line in lines if "samples" in line], steps)
    for step, of_step in parts.items():
        read = sorted(sample for part in of_step for sample in part["samples"])
        assert read == job.samples_at(slots_of(schedule, step)), step
    slots = [slot for step in sorted(parts) for slot in slots_of(schedule, step)]
    assert slots == list(range(parse_state(last).consumed_samples))
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses.keys() == set(range(1, steps + 1))
    logged = read_scalars(run_folder)[f"{CORPUS_LOSS}/code"].steps.tolist()
    assert logged == sorted(set(logged))
    # A replica that leads may be killed after a commit, before it logs the step.
    assert len(losses.keys() - logged) <= kills
    return losses


def counted_attempts(lines: list[dict[str, Any]], steps: int) -> dict[int, list[dict[str, Any]]]:
    """The contributions to the attempt at each step that the result of the last step rests on."""
    in_time = sorted(lines, key=lambda line: line["time"])
    attempt, found = in_time[-1]["attempt"], dict[int, list[dict[str, Any]]]()
    for step in range(steps, 0, -1):
        found[step] = [line for line in lines if (line["step"], line["attempt"]) == (step, attempt)]
        (attempt,) = {part["before"] for part in found[step]}
    assert attempt == 0
    return found
