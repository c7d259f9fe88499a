"""A real run that is killed twice, and leaves out more documents each time it resumes."""

import dataclasses
import os
from pathlib import Path

import pytest

from blendtitan import build_datasets
from blendtitan.cli import main
from blendtitan.runs.audit import audit_run, check_proved
from blendtitan.runs.explain import explain_slots
from blendtitan.runs.open import open_run
from tests.titan.conftest import TIMEOUT_S, Job, digests_of
from tests.titan.launched import train

pytestmark = pytest.mark.slow


def train_until_killed(*arguments: str) -> None:
    """What each rank does: it is killed in the step after ``--checkpoint.load_step``."""
    os.environ["DIE_AT"] = "4" if "2" in arguments else "3"
    train(*arguments)


def killed(job: Job, *arguments: str, processes: int) -> None:
    run = job.launch(*arguments, processes=processes, entry=train_until_killed)
    assert run.wait(TIMEOUT_S) > 0, run.output[-3000:]
    job.wait_until_gone()


def line_of(job: Job, slot: int) -> str:
    """The first document of a slot, as a line of the list."""
    (sample,) = explain_slots(open_run(job.folder / "out"), [slot], with_texts=False)
    part = sample.parts[0]
    return f"{part.prefix} {part.documents[0].document_id}\n"


def expected(job: Job, removed: Path, slots: range) -> list[str]:
    config = dataclasses.replace(job.train_dataset().config, removed_documents=removed)
    train = build_datasets(config).train
    assert train is not None
    return digests_of(train, slots)  # pyright: ignore[reportArgumentType]


def test_a_run_leaves_out_documents_from_the_checkpoint_on(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed on 2 ranks, resumed and killed on 1 with a list, and on 2 with a longer one."""
    job.settings["training"]["steps"] = 6
    job.settings["checkpoint"]["interval"] = 1
    removed = job.folder / "removed.txt"
    killed(job, processes=2)
    removed.write_text(line_of(job, 9) + line_of(job, 3))
    job.settings["blendcorpus"]["removed_documents"] = str(removed)
    killed(job, "--checkpoint.load_step", "2", processes=1)
    assert job.samples()[3] == expected(job, removed, range(8, 12)) != job.expected_samples(3)
    removed.write_text(removed.read_text() + line_of(job, 17))
    output = job.run(processes=2)

    assert "Removed documents from slot 12 on:" in output
    assert "3 documents of " in output
    samples = {step: expected(job, removed, range(4 * step - 4, 4 * step)) for step in (4, 5, 6)}
    assert job.samples() == samples
    assert samples[5] != job.expected_samples(5)
    out = job.folder / "out"
    run = audit_run(out)
    check_proved(run)
    assert [one.state and len(one.state.removals) for one in run] == [0, 0, 1, 2, 2, 2]
    assert main(["removed", str(out)]) == 0
    assert "each has EOD in its place, and no label" in capsys.readouterr().out
    removed.write_text("".join(removed.read_text().splitlines(keepends=True)[1:]))
    message = "lists 2 documents, but the checkpoint was trained without 3 documents from slot 12"
    assert message in job.fail("--training.steps", "7", processes=2)


def test_a_step_whose_documents_are_all_removed_leaves_the_weights_finite(job: Job) -> None:
    """It has no label: a loss divided by their number would be NaN, and so would the weights."""
    removed = job.folder / "removed.txt"
    catalog = job.train_dataset().catalog
    counts = zip(catalog.prefixes, catalog.document_cuts[:, 3].tolist(), strict=True)
    removed.write_text("".join(f"{prefix} {n}\n" for prefix, num in counts for n in range(num)))
    job.settings["training"]["steps"] = 2
    job.settings["blendcorpus"]["removed_documents"] = str(removed)
    job.settings["guards"] = {"max_nonfinite_losses": 1}

    job.run(processes=2)

    assert job.losses("training") == {1: 0.0, 2: 0.0}
