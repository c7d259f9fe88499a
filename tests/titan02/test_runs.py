"""Whole runs: what each step reads, a kill and a resume, other numbers of processes, losses."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blendtitan.claims.held import hold_claim, release_claim
from blendtitan.titan02.losses import IS_SUMMED
from tests.faults.killing import wait_until
from tests.small_corpora import write_corpora
from tests.titan02.runs import ALONE, ROOT, STEPS, TIMEOUT_S, Ended, SmallRun

VALIDATES = ("--validation.enable", "--validation.freq", "3", "--validation.samples", "8")
VALIDATES += ("--validation.local_batch_size", "2")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[SmallRun, Ended]:
    """A run that was killed by SIGKILL in step 5; its last checkpoint is of step 4."""
    run = SmallRun(tmp_path_factory.mktemp("killed"), data)
    os.environ["DIE_AT"] = "5"
    try:
        ended = run.start(record="killed")
    finally:
        del os.environ["DIE_AT"]
    assert ended.code != 0
    assert (run.folder / "out/checkpoint/step-4/.metadata").exists(), ended.output[-3000:]
    return run, ended


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Ended:
    """A run from its first step to its last, with validations."""
    held_out = write_corpora(tmp_path_factory.mktemp("held_out"), num_documents=8)
    sets = [{"name": "held-out", "path": str(held_out), "samples": 4}]
    run = SmallRun(tmp_path_factory.mktemp("whole"), data, validation={"set": sets})
    ended = run.start(*VALIDATES)
    assert ended.code == 0, ended.output[-5000:]
    return ended


def test_a_run_reads_the_global_order_and_learns(run: SmallRun, whole: Ended) -> None:
    assert whole.samples() == {step: run.expected_samples(step) for step in range(1, STEPS + 1)}
    losses = whole.losses()
    assert losses[STEPS] < losses[1]


def test_a_run_logs_each_corpus(whole: Ended) -> None:
    assert "The whole run:" in whole.output
    shown = re.findall(r"step: +\d+  loss of each corpus: code [\d.]+, web [\d.]+", whole.output)
    assert len(shown) >= STEPS - 1  # a step may have no sample of a corpus
    assert sorted(whole.losses("validation")) == [1, 3, 6]
    assert "perplexity" in whole.output
    assert "8 samples of the blend, 8 samples of code, 8 samples of web" in whole.output
    assert "4 samples of held-out" in whole.output
    assert len(re.findall(r"corpus and set: code [\d.]+, web [\d.]+, held-out", whole.output)) == 3


def test_a_killed_run_resumes_with_the_same_samples_and_losses(
    killed: tuple[SmallRun, Ended], whole: Ended
) -> None:
    run, before = killed
    folder = run.folder / "copy"
    shutil.copytree(run.folder / "out", folder)
    after = run.start("--job.dump_folder", str(folder), record="resumed")

    assert after.code == 0, after.output[-5000:]
    assert "Training starts at step 5" in after.output
    assert after.samples() == {step: run.expected_samples(step) for step in (5, 6)}
    expected = whole.losses()
    assert before.losses() | after.losses() == expected


def test_two_processes_continue_the_run_of_one(killed: tuple[SmallRun, Ended]) -> None:
    run, _ = killed
    folder = run.folder / "two"
    shutil.copytree(run.folder / "out", folder)
    after = run.start("--job.dump_folder", str(folder), processes=2, record="two")

    assert after.code == 0, after.output[-5000:]
    assert after.samples() == {step: run.expected_samples(step) for step in (5, 6)}
    assert "loss of each corpus" in after.output


@pytest.mark.skipif(not IS_SUMMED, reason="needs TorchTitan 0.2.2")
def test_a_run_leaves_out_documents_from_the_checkpoint_on(killed: tuple[SmallRun, Ended]) -> None:
    """Rank 0 reads the list; two ranks read the samples without the documents."""
    run, _ = killed
    folder = run.folder / "removed"
    shutil.copytree(run.folder / "out", folder)
    removed = run.removed_documents(17, 22)
    arguments = ("--job.dump_folder", str(folder), "--blendcorpus.removed_documents", str(removed))
    after = run.start(*arguments, processes=2, record="removed")

    assert after.code == 0, after.output[-5000:]
    assert "Removed documents from slot 16 on:" in after.output
    assert after.samples() == {step: run.expected_samples(step, removed) for step in (5, 6)}
    assert all(samples != run.expected_samples(step) for step, samples in after.samples().items())


def test_without_loader_state_a_run_continues_after_its_steps(
    killed: tuple[SmallRun, Ended],
) -> None:
    """As for a run that was begun with TorchTitan's own loader."""
    run, _ = killed
    folder = run.folder / "without"
    shutil.copytree(run.folder / "out", folder)
    arguments = ("--checkpoint.exclude_from_loading", "dataloader")
    after = run.start("--job.dump_folder", str(folder), *arguments, record="without")

    assert after.code == 0, after.output[-5000:]
    assert "The data continues after step 4 x 4 samples = 16 samples." in after.output
    assert after.samples() == {step: run.expected_samples(step) for step in (5, 6)}


def files_of(run: SmallRun) -> list[Path]:
    """TorchTitan makes empty folders as well."""
    return sorted(path for path in (run.folder / "out").rglob("*") if path.is_file())


def test_a_run_in_the_folder_of_another_job_is_refused(run: SmallRun) -> None:
    hold_claim(run.folder / "out")
    held = files_of(run)
    refused = run.start(processes=2)

    assert refused.code != 0
    assert f"another job trains in this folder: process {os.getpid()} on " in refused.output
    assert files_of(run) == held
    release_claim()
    assert run.start(record="alone").code == 0
    assert not list((run.folder / "out").glob("claim-*"))


def test_a_run_that_lost_its_claim_saves_no_checkpoint(run: SmallRun) -> None:
    """Its first checkpoint is due after step 2."""
    os.environ["LOSE_CLAIM_AT"] = "2"
    try:
        lost = run.start()
    finally:
        del os.environ["LOSE_CLAIM_AT"]

    assert lost.code != 0
    assert "This job ends without another checkpoint." in lost.output
    assert 2 in lost.samples()
    assert not list((run.folder / "out").glob("checkpoint/step-*"))


def test_a_signal_ends_a_run_at_once_and_releases_its_claim(run: SmallRun) -> None:
    """Without a checkpoint, which only the guards of later versions save."""
    words = ["-m", "blendtitan.titan02.train", *run.arguments(), "--training.steps", "5000"]
    log = run.folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words, "--blendcorpus.max_epochs", "0", "--checkpoint.interval=9999"],
            env=os.environ | ALONE | {"OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "step:  2" in log.read_text() or process.poll() is not None)
        assert list((run.folder / "out").glob("claim-*")), log.read_text()[-3000:]
        process.terminate()

        assert process.wait(TIMEOUT_S) == 130
    finally:
        process.kill()
    assert "ended by SIGTERM. The same command resumes from the last checkpoint" in log.read_text()
    assert not list((run.folder / "out").glob("claim-*"))
    assert not list((run.folder / "out").glob("checkpoint/step-*"))
