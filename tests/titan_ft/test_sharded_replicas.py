"""Replicas of two processes each, which share one copy of the model by FSDP."""

import random
from pathlib import Path

import pytest

from blendtitan.runs.audit import audit_run, check_proved
from tests.titan.conftest import digests_of
from tests.titan_ft.job import (
    GLOBAL_BATCH_SIZE,
    counted_attempts,
    kill_and_restart,
    lighthouse,
    replicated_job,
    wait_for,
)

pytestmark = pytest.mark.slow

REPLICAS = RANKS = 2


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_replicas_of_two_processes_are_killed_and_have_the_same_weights_in_the_end(
    kills: int, tokenizer_path: Path, tmp_path: Path
) -> None:
    """At the first step, one rank of a replica sends its state while the other receives one."""
    job = replicated_job(tmp_path, tokenizer_path, group_size=REPLICAS)
    job.processes = RANKS
    del job.settings["training"]["seed"]  # each replica begins with other weights
    job.settings["training"]["deterministic"] = False
    job.write_toml()
    rng = random.Random(8)
    with lighthouse(job):
        runs = [job.start(0, TOGETHER="2"), job.start(1, TOGETHER="2")]
        wait_for(lambda: job.committed() >= 2, *runs)
        for _ in range(kills):
            kill_and_restart(job, runs, [rng.randrange(REPLICAS)], rng)
        steps = job.committed() + 4
        job.end_at(steps, runs)

    check_proved(audit_run(Path(job.settings["job"]["dump_folder"])))
    lines = [line for replica in range(REPLICAS) for line in job.lines(replica)]
    assert read_samples(lines, steps) == digests_of(
        job.train_dataset(), range(steps * GLOBAL_BATCH_SIZE)
    )
    for rank in range(RANKS):
        weights = [e["weights"] for e in lines if e["rank"] == rank and "weights" in e]
        assert len(weights) == REPLICAS
        assert len({*weights}) == 1
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses[steps] < losses[1] - 0.3


def read_samples(lines: list[dict], steps: int) -> list[str]:
    """Digests of the samples that all ranks contributed to committed steps, sorted."""
    found: list[str] = []
    for rank in range(RANKS):
        of_rank = [line for line in lines if line["rank"] == rank and "samples" in line]
        attempts = counted_attempts(of_rank, range(1, steps + 1)).values()
        found += [sample for parts in attempts for part in parts for sample in part["samples"]]
    return sorted(found)
