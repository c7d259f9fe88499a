"""Real training runs, started by torchrun: killed runs, damaged data."""

import pytest

from tests.titan.conftest import TIMEOUT_S, Job, wait_for

pytestmark = pytest.mark.slow


def test_a_killed_run_resumes_like_an_uninterrupted_one(job: Job) -> None:
    """Killed twice under torchrun; from each resumed step on, losses are equal bit for bit."""
    job.settings["validation"] = {"enable": True, "freq": 4}
    job.settings["training"]["steps"] = 12
    job.run("--job.dump_folder", str(job.folder / "uninterrupted"))
    for last_step in (3, 7):
        process = job.start_torchrun()
        wait_for(lambda: last_step in job.losses("training"), process)  # noqa: B023
        job.kill(process)
    job.run()

    for kind in ("training", "validation"):
        uninterrupted, *parts = (job.losses(kind, run) for run in range(4))
        assert all(part.items() <= uninterrupted.items() for part in parts)
        assert set().union(*parts) == uninterrupted.keys()
    first_steps = [min(job.losses("training", run)) for run in range(1, 4)]
    assert first_steps[0] == 1 < first_steps[1] < first_steps[2]


def test_damaged_data_is_the_same_error_on_every_rank(job: Job) -> None:
    """Only rank 0 reads the shards at the start, and no rank may wait for it forever."""
    bin_path = job.folder / "web_1.bin"
    bin_path.write_bytes(bin_path.read_bytes()[:-10])
    process = job.start_torchrun(processes=2)
    output, _ = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode != 0
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
