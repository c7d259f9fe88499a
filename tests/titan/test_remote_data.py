"""A run on two ranks that reads object storage, is killed, and continues on the local copy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blendtitan import remote
from tests.object_store import ObjectStore, running
from tests.titan.conftest import TIMEOUT_S, Job
from tests.titan.launched import Launched

pytestmark = pytest.mark.slow


@pytest.fixture
def store(job: Job) -> Iterator[ObjectStore]:
    """An S3 server with the shards of the run."""
    with running() as server:
        server.upload(job.folder, "data/")
        tokenizer = Path(job.settings["model"]["tokenizer_path"])
        server.put("tokenizer/tokenizer.model", tokenizer.read_bytes())
        yield server
    remote.forget()


def launch(job: Job, store: ObjectStore, **more: str) -> Launched:
    """Start the run on two ranks, with the server's variables and others."""
    variables = store.environment | {"XDG_CACHE_HOME": str(job.folder / "cache")} | more
    return job.launch(processes=2, environment=variables)


def test_a_killed_run_resumes_from_object_storage_and_from_its_local_copy(
    job: Job, store: ObjectStore
) -> None:
    here = job.settings["training"]["dataset_path"]
    job.settings["training"]["dataset_path"] = "s3://bucket/data/file_list.txt"
    job.settings["model"]["tokenizer_path"] = "s3://bucket/tokenizer"
    store.faults = ["503", "truncated", "reset"]
    killed = launch(job, store, DIE_AT="4")
    assert killed.wait(TIMEOUT_S) > 0
    job.wait_until_gone()
    assert store.faults == []
    assert job.samples()[3] == job.expected_samples(3)

    again = launch(job, store)
    assert again.wait(TIMEOUT_S) == 0, again.output[-5000:]
    assert [*job.samples()] == [3, 4, 5, 6]
    for step, samples in job.samples().items():
        assert samples == job.expected_samples(step)

    copied = next((job.folder / "cache").rglob("tokenizer.model"))
    job.settings["model"]["tokenizer_path"] = str(copied)
    job.settings["training"] |= {"dataset_path": here, "steps": 8}
    job.run()
    assert [*job.samples()] == [7, 8]
    assert job.samples()[8] == job.expected_samples(8)


def test_a_killed_run_that_stages_resumes_on_the_same_samples(job: Job, store: ObjectStore) -> None:
    """Both ranks stage on one disk. The killed run leaves its blocks to the next."""
    disk = job.folder / "disk"
    job.settings["training"] |= {"dataset_path": "s3://bucket/data/file_list.txt", "steps": 80}
    job.settings["blendcorpus"] |= {"data_stage_path": str(disk), "data_stage_bytes": 1 << 22}
    job.settings["blendcorpus"]["max_epochs"] = 0
    job.settings["checkpoint"]["interval"] = 10
    killed = launch(job, store, DIE_AT="24")
    assert killed.wait(TIMEOUT_S) > 0
    job.wait_until_gone()
    assert len(list(disk.glob("blendtitan-*/*/0"))) == 4

    again = launch(job, store)
    assert again.wait(TIMEOUT_S) == 0, again.output[-5000:]
    staged = job.samples()
    assert [*staged] == [*range(21, 81)]
    assert "Staging on this node: 0.00 bytes fetched per byte read." in again.output
    assert list(disk.iterdir()) == []
    for step, samples in staged.items():
        assert samples == job.expected_samples(step)
