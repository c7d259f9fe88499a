"""``blendtitan train``: start the processes of a run on this machine."""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, Self

from blendtitan.errors import ConfigError, requires_extra
from blendtitan.runs.run_folder import CONFIG, no_run_error
from blendtitan.terminal import say
from blendtitan.visible import counted

_ONE_PROCESS = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "0",
}
"""Environment that torchrun sets. A run of one process starts sooner without its agent."""

_NODE_RANKS = ("SLURM_NODEID", "PALS_RANKID", "PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")
"""Variables with the rank of this machine: of Slurm, of PALS, and of other launchers."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The ranks to start on this machine."""

    nproc: int = 1
    """Their number."""

    shown: frozenset[int] = frozenset({0})
    """Local ranks whose output is shown. If there are several, each line begins with its rank."""

    nnodes: int = 1
    """Machines of the run."""

    rendezvous: str = "localhost:0"
    """``HOST:PORT`` where several machines meet: a free port of the first one."""

    is_host: bool | None = None
    """Whether this is the first machine. None: PyTorch compares host names."""

    job_id: str = ""
    """Text that is the same on all machines and different for every run."""

    @classmethod
    def chosen(
        cls, *, nproc: int | None, nnodes: int, rendezvous: str | None, job_id: str | None
    ) -> Self:
        """The ranks that the options and the environment ask for.

        Args:
            nproc: None: one per accelerator, or one.
            nnodes: Machines of the run. Each runs this command.
            rendezvous: ``HOST:PORT``; needed for several machines.
            job_id: Name of the run for several machines.

        Raises:
            ConfigError: A number is below 1, the rendezvous is missing, or ``LOG_RANK`` does not
                name local ranks.
            MissingExtraError: PyTorch is not installed.
        """
        # Interrupted, PyTorch logs statistics.
        logging.getLogger("torch").setLevel(logging.WARNING)
        if nproc is None:
            with requires_extra("train", "blendtitan train"):
                import torch
            nproc = max(1, torch.accelerator.device_count())
        for name, number in (("--nproc", nproc), ("--nnodes", nnodes)):
            if number < 1:
                raise ConfigError(f"{name} is {number}, expected at least 1")
        shown = os.environ.get("LOG_RANK", "0")
        if not all(text.isdecimal() and int(text) < nproc for text in shown.split(",")):
            raise ConfigError(
                f"LOG_RANK is {shown!r}, expected ranks of this machine, 0 to {nproc - 1}, "
                f"separated by commas"
            )
        ranks = cls(nproc=nproc, shown=frozenset(map(int, shown.split(","))))
        return ranks if nnodes == 1 else ranks._among(nnodes, rendezvous, job_id)

    def _among(self, nnodes: int, rendezvous: str | None, job_id: str | None) -> Self:
        host, colon, port = (rendezvous or "").rpartition(":")
        if not host or not colon or not port.isdecimal():
            raise ConfigError(
                f"--rendezvous is {rendezvous!r}, expected HOST:PORT, the same on all {nnodes} "
                f"machines: the name of the first machine and a free port on it"
            )
        node = next((os.environ[name] for name in _NODE_RANKS if name in os.environ), None)
        # One machine shows the run; the others would repeat its lines.
        is_shown = "LOG_RANK" in os.environ or node in (None, "0")
        return type(self)(
            nproc=self.nproc,
            shown=self.shown if is_shown else frozenset(),
            nnodes=nnodes,
            rendezvous=f"{host}:{port}",
            # Given explicitly where it is known, because a machine may have several host names.
            is_host=None if node is None else node == "0",
            job_id=job_id or os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID") or "run",
        )


def config_path(target: Path) -> Path:
    """The TOML file of a run, given the file or the run's folder.

    Raises:
        ConfigError: There is no such file.
    """
    path = target / CONFIG if target.is_dir() else target
    if not path.is_file():
        raise no_run_error(path)
    return path


def train(config: Path, arguments: Sequence[str], ranks: Ranks) -> NoReturn:
    """Train, and end this process with the status of training.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, as the trainer takes them.
        ranks: The ranks to start on this machine.

    Raises:
        MissingExtraError: PyTorch or TorchTitan is not installed.
    """
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    module = f"blendtitan.{'titan02' if is_02() else 'titan'}.train"
    words = ["-u", "-m", module, "--job.config_file", str(config), *arguments]
    # The trainer first imports PyTorch, which may take a minute from a slow disk.
    if ranks.shown:  # one machine of several is enough
        say(f"Starting {counted(ranks.nproc, 'process', 'processes')} of {config}")
        sys.stdout.flush()  # exec would lose it
    if ranks.nproc == ranks.nnodes == 1:
        os.execve(sys.executable, [sys.executable, *words], os.environ | _ONE_PROCESS)
    with requires_extra("train", "blendtitan train"):
        from blendtitan.start.launch import launch
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    sys.exit(launch(sys.executable, *words, ranks=ranks))


def is_02() -> bool:
    """Whether TorchTitan 0.2 is installed.

    Raises:
        MissingExtraError: TorchTitan is not installed.
        ConfigError: It is the main branch, which has no TOML files.
    """
    with requires_extra("train", "blendtitan train"):
        found = version("torchtitan")
    package = find_spec("torchtitan")  # importing it takes seconds
    folders = (package and package.submodule_search_locations) or ()
    if any(Path(folder, "components/data").is_dir() for folder in folders):
        raise ConfigError(
            "TorchTitan's main branch is installed, expected a release: main is not configured by "
            "TOML files. Install one, pip install 'torchtitan==0.3.*', or start main with "
            "torchrun -m blendtitan.titan.train --module blendtitan.titan_main --config NAME."
        )
    return found.startswith("0.2.")
