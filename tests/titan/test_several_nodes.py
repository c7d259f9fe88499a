"""A run on two nodes, which are one machine: job script, command and training are real."""

import os
from pathlib import Path

import pytest

from blendtitan.titan.toml import read_settings
from tests.conftest import free_port
from tests.test_launch import LAUNCHER, SCONTROL, Cluster
from tests.titan.conftest import Job

pytestmark = pytest.mark.slow


def test_two_nodes_train_together(job: Job, tmp_path: Path) -> None:
    """With one process each, the global batch of 4 needs no accumulation of batches of 2."""
    (tmp_path / "cluster").mkdir()
    stand_ins = {"scontrol": SCONTROL, "srun": LAUNCHER}
    cluster = Cluster(tmp_path / "cluster", ["localhost", "localhost"], stand_ins)
    output = cluster.submit(
        "slurm.sh",
        [str(job.write_toml()), "--nproc", "1", "--training.steps", "2"],
        PORT=free_port(),
        OMP_NUM_THREADS="1",
        PYTHONPATH=os.environ.get("PYTHONPATH", ""),
    )

    assert output.count("gradient accumulation steps 1") == 1, "the first node shows the run"
    assert output.count("training loss: ") == 1
    written = read_settings(["--job.config_file", str(tmp_path / "out/config.toml")])
    assert written.training.steps == 2
