"""A small training run that is killed again and again, and what it must have done in the end."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.faults.killing import num_kills
from tests.titan.conftest import Job, small_job
from tests.titan.launched import Launched

TIMEOUT_S = 120 + 10 * num_kills(0)


class FaultyJob(Job):
    """A run of ``tests.titan`` whose processes may be killed."""

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return Path(self.settings["job"]["dump_folder"]) / "checkpoint"

    def complete_steps(self) -> list[int]:
        """Steps of the complete checkpoints."""
        return sorted(int(p.parent.name[5:]) for p in self.checkpoints.glob("step-*/.metadata"))

    def incomplete(self) -> list[Path]:
        """Folders of checkpoints that are being written, or were."""
        return [p for p in self.checkpoints.glob("step-*") if not (p / ".metadata").exists()]

    def steps_begun(self) -> list[int]:
        """The steps for which the last run took a batch."""
        return [entry["step"] for entry in self.entries() if "samples" in entry]

    def state(self, step: int) -> dict[str, Any]:
        """Everything that a checkpoint holds, by name."""
        path = self.folder / f"step-{step}.pt"
        dcp_to_torch_save(str(self.checkpoints / f"step-{step}"), path)
        return _flat(torch.load(path, weights_only=True))


def wait_for(condition: Callable[[], object], run: Launched | None = None) -> bool:
    """Wait until ``condition()`` holds; False if the run ended first."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if run is not None and not run.is_alive():
            return False
        assert time.monotonic() < deadline, run and run.output[-5000:]
        time.sleep(0.002)
    return True


def kill(job: FaultyJob, run: Launched, victim: int | None) -> None:
    """Kill one rank, which the agent must notice, or (None) all ranks and the agent."""
    if victim is None:
        run.process.kill()
    for rank, pid in job.pids().items():
        if victim in (None, rank):
            # It may just have ended.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    run.wait(TIMEOUT_S)
    job.wait_until_gone()


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{name}/{key}").items()}


def faulty_job(folder: Path, tokenizer_path: Path) -> FaultyJob:
    """The debug model on two small corpora: 6 steps of 4 samples, a checkpoint every 2."""
    job = small_job(folder, tokenizer_path)
    return FaultyJob(job.folder, job.settings)
