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
from tests.faults.launched import Entry, Launched, train
from tests.titan.conftest import Job, small_job

TIMEOUT_S = 120 + 10 * num_kills(0)


class FaultyJob(Job):
    """A run of ``tests.titan`` that starts in a second, and of which processes may be killed."""

    def launch(self, *arguments: str, processes: int = 1, entry: Entry = train) -> Launched:
        """Start it; ``arguments`` win over its settings."""
        self.records.append(self.folder / f"record_{len(self.records)}")
        words = ["--job.config_file", str(self.write_toml()), *arguments]
        return Launched.start(words, processes=processes, record=self.records[-1], entry=entry)

    def end(self, *arguments: str, processes: int = 1, entry: Entry = train) -> str:
        """Run it to its end and return what it printed."""
        run = self.launch(*arguments, processes=processes, entry=entry)
        assert run.wait(TIMEOUT_S) == 0, run.output[-5000:]
        return run.output

    def break_down(self, *arguments: str, processes: int = 1, entry: Entry = train) -> str:
        """Run it, expecting an error of which no process is left; what it printed."""
        run = self.launch(*arguments, processes=processes, entry=entry)
        assert run.wait(TIMEOUT_S) > 0, run.output[-5000:]
        self.wait_until_gone()
        return run.output

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

    def pids(self) -> dict[int, int]:
        """Process of each rank of the last run."""
        return {entry["rank"]: entry["pid"] for entry in self.entries() if "pid" in entry}

    def steps_begun(self) -> list[int]:
        """Steps of which the last run took a batch."""
        return [entry["step"] for entry in self.entries() if "samples" in entry]

    def wait_until_gone(self) -> None:
        """Check that no rank of the last run outlives its agent for long."""
        wait_for(lambda: not any(map(_is_running, self.pids().values())))

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
    """SIGKILL to one rank, whom the agent must miss, or (None) to all ranks and the agent."""
    if victim is None:
        run.process.kill()
    for rank, pid in job.pids().items():
        if victim in (None, rank):
            # It may just have ended.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    run.wait(TIMEOUT_S)
    job.wait_until_gone()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{name}/{key}").items()}


def faulty_job(folder: Path, tokenizer_path: Path) -> FaultyJob:
    """The debug model on two small corpora: 6 steps of 4 samples, a checkpoint every 2."""
    job = small_job(folder, tokenizer_path)
    return FaultyJob(job.folder, job.settings)
