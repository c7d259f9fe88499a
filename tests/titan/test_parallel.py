"""One run handed from mesh to mesh: real processes, every kind of mesh that trains on a CPU."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from torch.distributed.pipelining.schedules import _PipelineSchedule

from tests.titan.conftest import Job, small_job

pytestmark = pytest.mark.slow

STEPS_EACH = 2

OPTIONS = {
    "replicate": "--parallelism.data_parallel_replicate_degree",
    "shard": "--parallelism.data_parallel_shard_degree",
    "tensor": "--parallelism.tensor_parallel_degree",
    "pipeline": "--parallelism.pipeline_parallel_degree",
    "local_batch_size": "--training.local_batch_size",
}


@dataclass(frozen=True)
class Mesh:
    """Degrees of parallelism, and how the global batch of 4 is cut."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    local_batch_size: int = 1

    def __str__(self) -> str:
        sizes = {name: getattr(self, name) for name in OPTIONS}
        return " ".join(f"{name}={size}" for name, size in sizes.items() if size > 1) or "one"

    @property
    def processes(self) -> int:
        """How many there are."""
        return self.replicate * self.shard * self.peers

    @property
    def peers(self) -> int:
        """Processes that share each place among the data-parallel ranks."""
        return self.tensor * self.pipeline

    @property
    def arguments(self) -> list[str]:
        """Them on the command line of a run."""
        chosen = [(option, str(getattr(self, name))) for name, option in OPTIONS.items()]
        pipeline = ["--parallelism.pipeline_parallel_schedule", "1F1B"]
        return [word for pair in chosen for word in pair] + pipeline * (self.pipeline > 1)


# Without a comment the gradients of several micro batches are accumulated. Tensor parallelism alone
# is in test_corpus_runs.py.
MESHES = [
    Mesh(),
    Mesh(replicate=2),
    Mesh(shard=2),
    Mesh(replicate=2, shard=2),  # a micro batch each
    Mesh(shard=2, tensor=2),
    Mesh(replicate=2, tensor=2, local_batch_size=2),  # a micro batch each
    Mesh(local_batch_size=4),  # one micro batch
]
PIPELINES = [
    Mesh(pipeline=2, local_batch_size=2),  # each of two micro batches in two parts
    Mesh(pipeline=2, shard=2, local_batch_size=2),
    Mesh(pipeline=2, tensor=2, local_batch_size=4),
    Mesh(shard=2, local_batch_size=2),  # a micro batch each
]
NO_PIPELINES = "arg_mbs" not in inspect.signature(_PipelineSchedule.step).parameters
SKIPPED = pytest.mark.skipif(NO_PIPELINES, reason="TorchTitan's pipelines need torch 2.15")
CHAIN = [*MESHES, *PIPELINES]
LINKS = [
    pytest.param(link, id=str(mesh), marks=[SKIPPED] if link >= len(MESHES) else [])
    for link, mesh in enumerate(CHAIN)
]

Trained = Callable[[int], Job]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Trained:
    """The run up to one mesh of the chain. Each mesh resumes from the previous one's checkpoint."""
    job = small_job(tmp_path_factory.mktemp("chain"), tokenizer_path)
    job.settings["checkpoint"]["interval"] = 100  # only the last step's

    @cache
    def train(link: int) -> Job:
        if link > 0:
            train(link - 1)
        mesh = CHAIN[link]
        steps = (link + 1) * STEPS_EACH
        job.run("--training.steps", str(steps), *mesh.arguments, processes=mesh.processes)
        return job

    return train


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Job:
    """The same steps on one process."""
    job = small_job(tmp_path_factory.mktemp("uninterrupted"), tokenizer_path)
    job.settings["checkpoint"]["enable"] = False
    num_links = len(MESHES) if NO_PIPELINES else len(CHAIN)
    job.run("--training.steps", str(num_links * STEPS_EACH))
    return job


def steps_of(link: int) -> range:
    return range(1 + link * STEPS_EACH, 1 + (link + 1) * STEPS_EACH)


@pytest.mark.parametrize("link", LINKS)
def test_every_step_has_the_samples_that_one_process_reads(
    trained: Trained, uninterrupted: Job, link: int
) -> None:
    """The union over the ranks, whatever the mesh and the mesh that saved the checkpoint."""
    seen = trained(link).samples(run=link)
    expected = uninterrupted.samples()

    assert seen.keys() == set(steps_of(link))
    for step, digests in seen.items():
        assert digests == sorted(expected[step] * CHAIN[link].peers)
        assert expected[step] == uninterrupted.expected_samples(step)


@pytest.mark.parametrize("link", LINKS)
def test_peers_read_the_same_and_data_parallel_ranks_each_their_own(
    trained: Trained, link: int
) -> None:
    mesh = CHAIN[link]
    for of_rank in trained(link).samples_of_ranks(run=link).values():
        places = {tuple(digests) for digests in of_rank.values()}
        read = [digest for place in places for digest in place]

        assert len(of_rank) == mesh.processes
        assert len(places) == mesh.replicate * mesh.shard
        assert len(read) == len(set(read))


@pytest.mark.parametrize("link", LINKS)
def test_the_losses_are_those_of_one_process(
    trained: Trained, uninterrupted: Job, link: int
) -> None:
    """So weights and optimizer moved with the place in the data. Sums differ in their order."""
    losses = trained(link).losses("training", run=link)
    expected = uninterrupted.losses("training")

    assert losses == pytest.approx({step: expected[step] for step in steps_of(link)}, rel=1e-4)
