"""Real training runs that must fail."""

import pytest

from tests.titan.conftest import Job

pytestmark = pytest.mark.slow


def test_a_token_beyond_the_vocabulary_ends_all_ranks(job: Job) -> None:
    """It is found while reading, by one rank, when the others already wait for its gradients."""
    bin_path = job.folder / "web_1.bin"
    bin_path.write_bytes(b"\xff\x7f" * (bin_path.stat().st_size // 2 - 1) + b"\x02\x00")
    output = job.fail("--blendcorpus.append_eod", "false", processes=2)

    assert "holds the token id 32767, expected ids from 0 to 127" in output


def test_without_documents_validation_is_refused_before_training(job: Job) -> None:
    output = job.fail("--validation.enable", "--blendcorpus.split", "100,0,0")

    assert "validation.enable = false" in output
    assert not job.losses("training")
