"""A real run that leaves out steps after a loss spike, on two ranks, killed in between."""

import os

import pytest

from blendtitan.cli import main
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.runs.explain import explain_slots
from blendtitan.runs.open import open_run
from blendtitan.runs.report.facts import gather_run
from tests.titan.conftest import TIMEOUT_S, Job
from tests.titan.launched import train

pytestmark = pytest.mark.slow

# Steps 4 to 5, slots 12 to 19, and half of the step after them.
SKIPS = [{"from_step": 4, "to_step": 5}, {"from_slot": 22, "to_slot": 24}]
SLOTS = {
    3: [8, 9, 10, 11],
    4: [20, 21, 25, 26],
    5: [27, 28, 29, 30],
    6: [31, 32, 33, 34],
    7: [35, 36, 37, 38],
}


def train_until_killed(*arguments: str) -> None:
    """What each rank does: it is killed in step 6."""
    os.environ["DIE_AT"] = "6"
    train(*arguments)


def killed(job: Job, *arguments: str) -> None:
    run = job.launch(*arguments, processes=2, entry=train_until_killed)
    assert run.wait(TIMEOUT_S) > 0
    job.wait_until_gone()


def test_a_run_returns_to_a_checkpoint_and_leaves_out_what_it_diverged_on(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in step 6, resumed after step 2 with skips, killed again, and resumed again."""
    job.settings["training"]["steps"] = 7
    job.settings["blendcorpus"]["num_workers"] = 2
    killed(job)
    assert job.samples()[4] == job.samples_at(range(12, 16))
    job.settings["blendcorpus"]["skip"] = SKIPS
    output = job.fail("--checkpoint.load_step", "4", processes=2)
    assert "the skipped slots 12 to 15 were trained on before this checkpoint" in output

    killed(job, "--checkpoint.load_step", "2")
    expected = {step: job.samples_at(slots) for step, slots in SLOTS.items()}
    assert job.samples() == {step: expected[step] for step in (3, 4, 5, 6)}
    output = job.run(processes=2)
    assert job.samples() == {step: expected[step] for step in (5, 6, 7)}
    assert "tokens read" in output

    out = job.folder / "out"
    run = audit_run(out)
    check_proved(run)
    assert [one.state and one.state.consumed_samples for one in run] == [8, 27, 35, 39]
    source = open_run(out)
    assert [each.is_skipped for each in explain_slots(source, range(11, 14))] == [False, True, True]
    main(["explain", str(out), "--slot", "23"])
    assert "slot 23: skipped" in capsys.readouterr().out
    main(["explain", str(out)])
    assert "slots 12 to 19 (steps 4 to 5)" in capsys.readouterr().out
    facts = gather_run(out, name="run")
    assert (facts.num_samples, facts.reached_step, facts.last_step) == (28, 7, 7)
    assert facts.tokens_at_end == 28 * 32
