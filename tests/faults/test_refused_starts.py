"""A start that is refused leaves the run's folder as it is."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from tests.faults.training import FaultyJob, faulty_job
from tests.titan.conftest import tokenizer_path

__all__ = ["tokenizer_path"]

pytestmark = pytest.mark.slow

# TorchTitan's own log of each start, under a name of its own; no tool reads it.
LOG_OF_A_START = "structured_logs"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> FaultyJob:
    """A run of two steps that writes everything a run can write."""
    job = faulty_job(tmp_path_factory.mktemp("saved"), tokenizer_path)
    job.settings["training"]["steps"] = 2
    job.settings["metrics"]["enable_tensorboard"] = True
    job.settings["debug"] = {"save_config_file": "configs/saved.json"}
    job.run()
    return job


def contents(job: FaultyJob) -> dict[str, str]:
    """Digest of every file of the run's folder."""
    folder = job.folder / "out"
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and LOG_OF_A_START not in path.parts
    }


@pytest.mark.parametrize(
    ("processes", "arguments", "error"),
    [
        (1, ["--blendcorpus.seed", "9"], "seed: checkpoint 1234, now 9"),
        (2, ["--blendcorpus.seed", "9"], "seed: checkpoint 1234, now 9"),
        (1, ["--blendcorpus.max_epochs", "0.001"], "would be read more often than"),
        (1, ["--blendcorpus.data_file_list", "nowhere"], "nowhere"),
        (
            1,
            ["--checkpoint.load_step", "7"],
            "checkpoint.load_step is 7, expected the step of a complete checkpoint",
        ),
        (2, ["--training.global_batch_size", "6"], "expected a multiple of 4"),
        (2, ["--parallelism.tensor_parallel_degree", "4"], "has 2 processes, expected a multiple"),
    ],
    ids=["state", "state on two ranks", "epochs", "data", "checkpoint", "batch", "degrees"],
)
def test_a_refused_start_changes_nothing(
    job: FaultyJob, processes: int, arguments: list[str], error: str
) -> None:
    """Or ``report``, ``plan`` and ``explain`` would describe a run that never was."""
    before = contents(job)
    output = job.fail("--training.steps", "9", *arguments, processes=processes)

    assert error in output
    assert contents(job) == before
    assert {"config.toml", "configs/saved.json"} <= before.keys()
    assert "AssertionError" not in output


def test_a_start_that_is_accepted_writes_its_configuration(job: FaultyJob) -> None:
    job.run("--training.steps", "3")
    settings = tomllib.loads((job.folder / "out/config.toml").read_text())

    assert settings["training"]["steps"] == 3
    assert '"steps": 3' in (job.folder / "out/configs/saved.json").read_text()
