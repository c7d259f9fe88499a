"""Real training runs, started by torchrun: resume, number of ranks, damaged data."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.titan.conftest import Job, small_job, wait_for

pytestmark = pytest.mark.slow


def test_a_killed_run_goes_on_as_if_nothing_had_happened(job: Job) -> None:
    """Killed after three steps; from each resumed step on, losses are equal bit for bit."""
    job.settings["validation"] = {"enable": True, "freq": 4}
    job.settings["training"]["steps"] = 12
    job.run("--job.dump_folder", str(job.folder / "uninterrupted"))
    for last_step in (3, 7, 11):
        process = job.start()
        wait_for(lambda: last_step in job.losses("training"), process)  # noqa: B023
        job.kill(process)
    job.run()

    for kind in ("training", "validation"):
        uninterrupted, *parts = (job.losses(kind, run) for run in range(5))
        assert all(part.items() <= uninterrupted.items() for part in parts)
        assert set().union(*parts) == uninterrupted.keys()
    first_steps = [min(job.losses("training", run)) for run in range(1, 5)]
    assert first_steps[0] == 1 < first_steps[1] < first_steps[2] < first_steps[3]


SavedOn = Callable[[int], Job]
InCopy = Callable[[Job], tuple[str, str]]


@pytest.fixture(scope="module")
def saved_on(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> SavedOn:
    """A run of two steps on a number of processes; each is trained once."""

    @cache
    def train(processes: int) -> Job:
        job = small_job(tmp_path_factory.mktemp("saved"), tokenizer_path)
        job.run("--training.steps", "2", processes=processes)
        return job

    return train


@pytest.fixture
def in_copy(tmp_path: Path) -> InCopy:
    """Arguments that let a run continue in a copy of its checkpoints."""

    def copy(job: Job) -> tuple[str, str]:
        return "--job.dump_folder", str(shutil.copytree(job.folder / "out", tmp_path / "out"))

    return copy


@pytest.mark.parametrize(("saving", "resuming"), [(2, 1), (1, 2)])
def test_every_step_has_the_same_samples_on_any_number_of_ranks(
    saved_on: SavedOn, in_copy: InCopy, saving: int, resuming: int
) -> None:
    """A checkpoint may be continued on another number of processes."""
    job = saved_on(saving)
    job.run("--training.steps", "4", *in_copy(job), processes=resuming)

    seen = job.samples(run=0) | job.samples()
    assert seen == {step: job.expected_samples(step) for step in (1, 2, 3, 4)}


def test_a_checkpoint_without_loader_state_goes_on_after_its_last_step(
    saved_on: SavedOn, in_copy: InCopy
) -> None:
    """As do checkpoints of other loaders: the step says how many samples are behind."""
    job = saved_on(1)
    without_state = ["--checkpoint.exclude_from_loading", "dataloader"]
    job.run("--training.steps", "3", *without_state, *in_copy(job))

    assert job.samples() == {3: job.expected_samples(3)}


def test_another_global_batch_size_is_refused_on_resume(saved_on: SavedOn, in_copy: InCopy) -> None:
    """Steps times batch size would no longer be the number of samples behind."""
    job = saved_on(1)
    output = job.fail("--training.steps", "3", "--training.global_batch_size", "2", *in_copy(job))

    assert "has consumed 8 samples, expected 4: 2 steps of 2 samples" in output
    assert 'checkpoint.exclude_from_loading = ["dataloader"]' in output


def test_damaged_data_is_the_same_error_on_every_rank(job: Job) -> None:
    """Only rank 0 reads the shards at the start, and no rank may wait for it forever."""
    bin_path = job.folder / "web_1.bin"
    bin_path.write_bytes(bin_path.read_bytes()[:-10])
    output = job.fail(processes=2)

    for rank in (0, 1):
        errors = [line for line in output.splitlines() if f"[rank{rank}]" in line]
        assert any("CorruptShardError" in line and "web_1" in line for line in errors)


def test_a_token_beyond_the_vocabulary_ends_all_ranks(job: Job) -> None:
    """It is found while reading, by one rank, when the others already wait for its gradients."""
    bin_path = job.folder / "web_1.bin"
    bin_path.write_bytes(b"\xff\x7f" * (bin_path.stat().st_size // 2 - 1) + b"\x02\x00")
    output = job.fail("--blendcorpus.append_eod", "false", processes=2)

    assert "VocabularyError" in output
    assert "holds the token id 32767, expected ids from 0 to 127" in output


def test_without_documents_validation_is_refused_before_training(job: Job) -> None:
    output = job.fail("--validation.enable", "--blendcorpus.split", "100,0,0")

    assert "EmptySplitError" in output
    assert "validation.enable = false" in output
    assert not job.losses("training")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--parallelism.data_parallel_replicate_degree", "2"),
        ("--parallelism.tensor_parallel_degree", "2"),
    ],
    ids=["DDP", "TP"],
)
def test_two_processes_train_together_on_a_cpu(job: Job, arguments: tuple[str, ...]) -> None:
    """Tensor-parallel peers share a place among the ranks, and so read the same samples."""
    output = job.run("--training.steps", "2", *arguments, processes=2)

    assert len(job.losses("training")) == 2
    assert output.count("training loss: ") == 1
