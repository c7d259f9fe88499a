"""Real training runs: one that torchrun starts and that is killed, and ones that must fail."""

import pytest

from tests.titan.conftest import Job, wait_for

pytestmark = pytest.mark.slow


def test_a_killed_run_resumes_like_an_uninterrupted_one(job: Job) -> None:
    """From the resumed step on, losses are equal bit for bit.

    ``tests/faults/test_killed_training.py`` kills runs more than once, at other moments.
    """
    job.settings["validation"] = {"enable": True, "freq": 4}
    job.settings["training"]["steps"] = 8
    job.run("--job.dump_folder", str(job.folder / "uninterrupted"))
    process = job.start_torchrun()
    wait_for(lambda: 5 in job.losses("training"), process)
    job.kill(process)
    job.run()

    for kind in ("training", "validation"):
        uninterrupted, *parts = (job.losses(kind, run) for run in range(3))
        assert all(part.items() <= uninterrupted.items() for part in parts)
        assert set().union(*parts) == uninterrupted.keys()
    killed, resumed = (min(job.losses("training", run)) for run in (1, 2))
    assert killed == 1 < resumed


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
