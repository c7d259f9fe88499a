"""Replicas that are killed at random moments and start again, while the job trains."""

import random
from pathlib import Path

import pytest

from blendtitan.batch_schedule import schedule_of_state, slots_of
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.metric_names import CORPUS_LOSS
from blendtitan.order.blend import Segment
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.runs.checkpoints import stored_states
from blendtitan.runs.scalars import read_scalars
from blendtitan.state import parse_state
from tests.faults.killing import num_kills
from tests.titan import unmasked
from tests.titan.conftest import digests_of
from tests.titan_ft.job import (
    ReplicatedJob,
    counted_attempts,
    kill_and_restart,
    lighthouse,
    replicated_job,
    wait_for,
)

pytestmark = pytest.mark.slow

REPLICAS = 3
SKIPPED = range(10, 14)
CHANGED, SHARES = 4, {"code": 3, "web": 1}
"""Steps before the shares change, and the shares from then on."""
REMOVED = range(0, 40, 2)
"""Documents of ``code_0`` that are not read."""


def changed_job(folder: Path, tokenizer_path: Path, *, policy: str) -> ReplicatedJob:
    """Balanced steps, larger ones after step 3, skipped slots, other shares, and three replicas."""
    job = replicated_job(folder, tokenizer_path, batch_policy=policy)
    # Uneven shares of each replica, where they may be.
    sizes = (5, 7) if policy == "same_batch" else (6, 12)
    job.settings["training"] |= {
        "global_batch_size": sizes[0],
        "batch_schedule": [{"from_step": 3, "global_batch_size": sizes[1]}],
    }
    job.settings["blendcorpus"] |= {
        "skip": [{"from_slot": SKIPPED[0], "to_slot": SKIPPED[-1]}],
        "segment": [{"from_step": CHANGED, "shares": SHARES}],
        "balance": "attention",
        "removed_documents": str(folder / "removed.txt"),
        "provide_attention_mask": True,
    }
    (folder / "removed.txt").write_text("".join(f"code_0 {n}\n" for n in REMOVED))
    job.write_toml()
    return job


@pytest.mark.parametrize(
    ("policy", "kills"),
    [
        ("same_batch", num_kills(5)),
        pytest.param("same_batch", num_kills(20), marks=pytest.mark.long, id="same_batch-long"),
        pytest.param("smaller_batch", num_kills(20), marks=pytest.mark.long),
    ],
)
def test_each_committed_slot_is_read_once_however_often_replicas_are_killed(
    policy: str, kills: int, tokenizer_path: Path, tmp_path: Path
) -> None:
    """With segments, balance, skipped slots, removed documents and a changed batch size together.

    Every second time, two replicas are killed at once. Then the job starts again, with two.
    """
    job = changed_job(tmp_path, tokenizer_path, policy=policy)
    rng, killed = random.Random(6), 0
    with lighthouse(job):
        # At the second step, the last one claims another state, as if it had committed alone.
        together = {"TOGETHER": f"{REPLICAS}"}
        runs = [job.start(replica, **together) for replica in (0, 1)]
        runs.append(job.start(2, DIVERGE_AT="2", **together))
        wait_for(lambda: job.committed() >= 2, *runs)
        assert runs[2].output.count("continues with the state of another") == 2
        while killed < kills:
            victims = rng.sample(range(REPLICAS), min(1 + killed % 3 % 2, kills - killed))
            kill_and_restart(job, runs, victims, rng)
            killed += len(victims)
        steps = max(job.committed(), CHANGED) + 4
        job.end_at(steps, runs)
        losses = check(job, range(1, steps + 1), kills=kills)

    with lighthouse(job):
        job.settings["fault_tolerance"]["group_size"] = 2
        job.write_toml()
        job.end_at(steps + 3, [job.start(0), job.start(1)])
        losses |= check(job, range(steps + 1, steps + 4))
    if policy == "same_batch":
        assert losses == pytest.approx(losses_of_one_process(job, steps + 3), rel=1e-3)
    else:
        assert losses[steps] < losses[1] - 0.5


def losses_of_one_process(job: ReplicatedJob, steps: int) -> dict[int, float]:
    """The losses of a run without replicas, which differ by the order of additions only."""
    out = job.folder / "plain"
    words = (f"--job.dump_folder={out}", f"--training.steps={steps}")
    job.run("--fault_tolerance.no_enable", *words, entry=unmasked.train)
    return job.losses("training")


def check(job: ReplicatedJob, steps: range, kills: int = 0) -> dict[int, float]:
    """Check that each slot was read in one committed attempt; the loss of each step."""
    lines = [line for replica in range(REPLICAS) for line in job.lines(replica)]
    lines = [line for line in lines if line["step"] in steps]
    run_folder = Path(job.settings["job"]["dump_folder"])
    check_proved(audit_run(run_folder))
    last = stored_states(run_folder)[-1].state_dict
    assert last is not None
    state, schedule = parse_state(last), schedule_of_state(last)
    found = {step: list(slots_of(schedule, step, state.skips)) for step in range(1, steps[-1] + 1)}
    assert [slot for each in found.values() for slot in each] == [
        slot for slot in range(state.consumed_samples) if slot not in SKIPPED
    ]
    dataset = job.train_dataset(removed_documents=job.folder / "removed.txt").with_changes(
        [Segment(found[CHANGED + 1][0], SHARES)]
    )
    assert any((dataset[slot].labels == IGNORE_INDEX).any() for slot in found[steps[0]])
    for step, parts in counted_attempts([e for e in lines if "samples" in e], steps).items():
        read = sorted(sample for part in parts for sample in part["samples"])
        assert read == digests_of(dataset, found[step]), step
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses.keys() == set(steps)
    logged = read_scalars(run_folder)[f"{CORPUS_LOSS}/code"].steps.tolist()
    assert logged == sorted(set(logged))
    # A replica that leads may be killed after a commit, before it logs the step.
    assert len(losses.keys() - logged) <= kills
    return losses
