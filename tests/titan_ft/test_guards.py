"""A replica that is to end: the one that leads saves a checkpoint, the others do not."""

from pathlib import Path

import pytest

from blendtitan.claims.held import CLAIMS
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.start.launch import INTERRUPTED
from tests.titan_ft.job import TIMEOUT_S, lighthouse, replicated_job, wait_for

pytestmark = pytest.mark.slow


def test_only_the_replica_that_leads_says_that_it_saves(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    """Another one ends without a checkpoint of its own, and the rest of the job trains on."""
    job = replicated_job(tmp_path, tokenizer_path, group_size=2)
    job.settings["checkpoint"]["interval"] = 10**6
    job.write_toml()
    folder = Path(job.settings["job"]["dump_folder"])
    with lighthouse(job):
        first, second = runs = [job.start(0), job.start(1)]
        wait_for(lambda: "2 of 2 replicas take part" in second.output, *runs)
        at = job.committed()
        wait_for(lambda: job.committed() > at, *runs)
        second.process.terminate()

        assert second.wait(TIMEOUT_S) == INTERRUPTED, second.output[-5000:]
        assert "Received SIGTERM: this replica ends after step " in second.output
        assert "saving a checkpoint" not in second.output
        at = job.committed()
        wait_for(lambda: job.committed() > at, first)
        first.process.terminate()

        assert first.wait(TIMEOUT_S) == INTERRUPTED, first.output[-5000:]
        (saved,) = folder.glob("checkpoint/step-*/.metadata")
        step = int(saved.parent.name.removeprefix("step-"))
        assert f"Received SIGTERM: saving a checkpoint of step {step} before" in first.output
        assert step >= at
        assert not list(folder.glob(CLAIMS))


def test_after_a_signal_to_all_replicas_a_checkpoint_of_whole_steps_is_left(
    tokenizer_path: Path, tmp_path: Path
) -> None:
    job = replicated_job(tmp_path, tokenizer_path, group_size=2)
    job.settings["checkpoint"]["interval"] = 1000
    job.write_toml()
    with lighthouse(job):
        runs = [job.start(0), job.start(1)]
        wait_for(lambda: job.committed() >= 2, *runs)
        for run in runs:
            run.process.terminate()

        assert [run.wait(TIMEOUT_S) for run in runs] == [INTERRUPTED, INTERRUPTED], runs[0].output[
            -5000:
        ]

    found = audit_run(Path(job.settings["job"]["dump_folder"]))
    check_proved(found)
    assert found[-1].stored.step >= 2
