"""Real training runs that are resumed with other settings than they were saved with."""

import json
import shutil
from pathlib import Path

import pytest

from blendtitan.corpus_progress import corpus_table
from tests.small_corpora import VOCAB_SIZE
from tests.titan.conftest import GLOBAL_BATCH_SIZE, SEQ_LEN, Job, small_job
from tests.titan.test_hf_assets import write_tokenizer

pytestmark = pytest.mark.slow

CHANGED = "The global batch size was 4 samples until step 5 and is 8 from now on"
STATELESS = "The checkpoint contains no data loader state."


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Job:
    """Six steps on two processes, saved asynchronously; the last two checkpoints are kept."""
    job = small_job(tmp_path_factory.mktemp("saved"), tokenizer_path)
    job.settings["training"]["steps"] = 6
    job.settings["blendcorpus"]["num_workers"] = 0
    job.settings["checkpoint"] |= {"async_mode": "async", "interval": 1, "keep_latest_k": 2}
    job.run(processes=2)
    return job


@pytest.fixture
def in_copy(saved: Job, tmp_path: Path) -> list[str]:
    """Arguments that let a run continue in a copy of its checkpoints."""
    shutil.copytree(saved.folder / "out", tmp_path / "out")
    return ["--job.dump_folder", str(tmp_path / "out")]


def slots(start: int, *, global_batch_size: int, steps: range) -> dict[int, range]:
    """Slots of each step, the first of them from ``start`` on."""
    size = global_batch_size
    return {
        step: range(start + place * size, start + (place + 1) * size)
        for place, step in enumerate(steps)
    }


def expected(job: Job, of_steps: dict[int, range]) -> dict[int, list[str]]:
    return {step: job.samples_at(step_slots) for step, step_slots in of_steps.items()}


def test_old_checkpoints_are_deleted_while_new_ones_are_written(saved: Job) -> None:
    """TorchTitan does not count one that is being written, nor deletes any after the last."""
    kept = {path.name for path in (saved.folder / "out/checkpoint").iterdir()}

    assert {"step-5", "step-6"} <= kept
    assert not {"step-1", "step-2"} & kept


def test_slots_continue_whatever_setting_changes(saved: Job, in_copy: list[str]) -> None:
    """Global batch size, ranks, threads, last step: from a checkpoint that is not the last.

    Its writing went on while the run did; a loader asked too late would tell of a later place.
    The run after that one must not say again what changed.
    """
    change = ["--training.global_batch_size", "8", "--blendcorpus.num_workers", "3"]
    at_5 = ["--checkpoint.load_step", "5"]
    output = saved.run("--training.steps", "8", *at_5, *change, *in_copy)
    of_steps = slots(5 * GLOBAL_BATCH_SIZE, global_batch_size=8, steps=range(6, 9))
    assert saved.samples() == expected(saved, of_steps)
    assert output.count(CHANGED) == 1
    assert STATELESS not in output
    assert corpus_table(saved.train_dataset(), of_steps[8].stop) in output

    output = saved.run("--training.steps", "9", *change, *in_copy, processes=2)
    of_steps = slots(of_steps[8].stop, global_batch_size=8, steps=range(9, 10))
    assert saved.samples() == expected(saved, of_steps)
    assert "The global batch size was" not in output


def test_without_loader_state_it_continues_after_step_times_batch_size(
    saved: Job, in_copy: list[str]
) -> None:
    """With the present global batch size, because no other is known. Logged once for all ranks."""
    without_state = ["--checkpoint.exclude_from_loading", "dataloader"]
    batch = ["--training.local_batch_size", "1", "--training.global_batch_size", "2"]
    output = saved.run("--training.steps", "7", *without_state, *batch, *in_copy, processes=2)

    assert saved.samples() == expected(saved, slots(6 * 2, global_batch_size=2, steps=range(7, 8)))
    assert output.count(STATELESS) == 1
    assert "UserWarning" not in output


def test_a_run_on_torchtitans_own_loader_is_continued_on_a_blend(job: Job, tmp_path: Path) -> None:
    """Its checkpoints hold a state for each rank, under other keys."""
    assets, text = tmp_path / "assets", tmp_path / "text"
    assets.mkdir()
    text.mkdir()
    write_tokenizer(assets)
    document = " ".join(f"w{token}" for token in range(3, VOCAB_SIZE))
    lines = [json.dumps({"text": document})] * (SEQ_LEN * GLOBAL_BATCH_SIZE)
    (text / "train.jsonl").write_text("\n".join(lines))
    job.settings["model"] = {"hf_assets_path": str(assets)}
    theirs = ["--training.dataset", "c4_test", "--training.dataset_path", str(text)]
    blend = job.settings.pop("blendcorpus")
    job.run("--training.steps", "2", *theirs)
    job.settings["blendcorpus"] = blend
    output = job.run("--training.steps", "3")

    assert len(job.samples(run=0)) == 2
    assert job.samples() == {3: job.expected_samples(3)}
    assert output.count(STATELESS) == 1


def test_a_state_of_another_step_than_the_trainers_ends_the_run(
    saved: Job, in_copy: list[str]
) -> None:
    """Here the trainer is kept from loading its own step, and would begin at 0."""
    alone = ["--checkpoint.exclude_from_loading", "train_state"]
    output = saved.fail("--training.steps", "7", *alone, *in_copy)

    assert "the data loader has consumed 24 samples, expected 0 at step 0" in output
    assert 'checkpoint.exclude_from_loading = ["dataloader"]' in output
