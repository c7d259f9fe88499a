"""Replicas that exchange changes of the model every few steps: a round is committed as a whole."""

import random
from pathlib import Path

import pytest
import torch

from blendtitan.batch_schedule import schedule_of_state, slots_of
from blendtitan.order.blend import Segment
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.runs.checkpoints import stored_states
from blendtitan.state import parse_state
from blendtitan.titan_ft.semi_sync import OuterOptimizer
from tests.faults.killing import num_kills
from tests.titan.conftest import digests_of
from tests.titan_ft.job import (
    counted_attempts,
    kill,
    kill_and_restart,
    lighthouse,
    replicated_job,
    wait_for,
)

ROUND = 3
SKIPPED = range(10, 14)
CHANGED, SHARES = ROUND + 2, {"code": 3, "web": 1}
"""Steps before the shares change, and the shares from then on."""


@pytest.mark.parametrize(("lr", "momentum"), [(0.7, 0.9), (1.0, 0.0)])
def test_the_outer_optimizer_is_that_of_pytorch(lr: float, momentum: float) -> None:
    """TorchTitan's experiment has SGD with Nesterov momentum."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    theirs = torch.optim.SGD([weight], lr=lr, momentum=momentum, nesterov=momentum > 0)
    ours = {"w": weight.detach().clone()}
    outer = OuterOptimizer(ours, lr=lr, momentum=momentum)
    for change in ([0.5, 0.25], [-1.0, 2.0], [0.0, 1.0]):
        weight.grad = torch.tensor(change)
        theirs.step()
        resumed = OuterOptimizer(ours, lr=lr, momentum=momentum)
        resumed.load_state_dict(outer.state_dict())
        outer = resumed
        outer.step({"w": ours["w"].clone()}, {"w": torch.tensor(change)})

        torch.testing.assert_close(ours["w"], weight.detach())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["same_batch", "smaller_batch"])
def test_the_slots_of_a_round_are_committed_or_read_again_together(
    policy: str, tokenizer_path: Path, tmp_path: Path
) -> None:
    """A replica is killed within a round; the others read the whole round again.

    Within rounds, slots are skipped, the shares change, and steps become larger and smaller.
    """
    job = replicated_job(tmp_path, tokenizer_path, semi_sync_method="diloco", sync_steps=ROUND)
    job.settings["fault_tolerance"] |= {"group_size": 2, "batch_policy": policy}
    sizes = {ROUND + 1: 12, 2 * ROUND + 2: 2, 3 * ROUND + 1: 6}
    job.settings["training"]["batch_schedule"] = [
        {"from_step": step, "global_batch_size": size} for step, size in sizes.items()
    ]
    job.settings["blendcorpus"] |= {
        "skip": [{"from_slot": SKIPPED[0], "to_slot": SKIPPED[-1]}],
        "segment": [{"from_step": CHANGED, "shares": SHARES}],
    }
    job.settings["checkpoint"]["interval"] = 2 * ROUND
    job.settings["metrics"]["log_freq"] = ROUND
    job.write_toml()
    rng = random.Random(7)
    with lighthouse(job):
        runs = [job.start(0), job.start(1)]
        wait_for(lambda: job.committed() >= ROUND, *runs)
        for _ in range(num_kills(3)):
            kill_and_restart(job, runs, [rng.randrange(2)], rng)
        steps = job.committed() + 4 * ROUND
        job.end_at(steps, runs)

    run_folder = Path(job.settings["job"]["dump_folder"])
    check_proved(audit_run(run_folder))
    last = stored_states(run_folder)[-1].state_dict
    assert last is not None
    state, schedule = parse_state(last), schedule_of_state(last)
    found = {step: list(slots_of(schedule, step, state.skips)) for step in range(1, steps + 1)}
    assert [slot for each in found.values() for slot in each] == [
        slot for slot in range(state.consumed_samples) if slot not in SKIPPED
    ]
    segments = [Segment(found[CHANGED + 1][0], SHARES)]
    dataset = job.train_dataset().with_changes(segments)
    lines = [line for replica in (0, 1) for line in job.lines(replica)]
    ends = range(ROUND, steps + 1, ROUND)
    for end, parts in counted_attempts([e for e in lines if "samples" in e], ends).items():
        of_round = range(end - ROUND + 1, end + 1)
        slots = [slot for step in of_round for slot in found[step]]
        read = sorted(sample for part in parts for sample in part["samples"])
        assert read == digests_of(dataset, slots), end
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses.keys() == set(ends)
    assert losses[steps] < losses[ROUND]


@pytest.mark.slow
def test_a_round_with_a_step_that_has_too_few_samples_for_all_replicas_begins_again(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    """A replica that failed may count beside the one that replaces it, as here for a while."""
    job = replicated_job(tmp_path, tokenizer_path, semi_sync_method="diloco", sync_steps=ROUND)
    job.settings["fault_tolerance"]["group_size"] = 2
    sizes = [(step, size) for r in range(0, 300, ROUND) for step, size in ((r, 8), (r + 1, 2))]
    job.settings["training"]["batch_schedule"] = [
        {"from_step": step, "global_batch_size": size} for step, size in sizes if step
    ]
    job.settings["checkpoint"]["interval"] = job.settings["metrics"]["log_freq"] = ROUND
    job.write_toml()
    with lighthouse(job):
        runs = [job.start(0), job.start(1)]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        words = f"--job.dump_folder={elsewhere}"
        third = job.start(1, words, RECORD=str(elsewhere / "record"))
        wait_for(lambda: "was not committed" in third.output, *runs, third)
        kill(third)
        job.end_at((job.committed() // ROUND + 2) * ROUND, runs)

    check_proved(audit_run(Path(job.settings["job"]["dump_folder"])))
