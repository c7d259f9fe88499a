"""``blendtitan train``: check a run, and start its processes on this machine."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn, Self

from blendtitan.errors import ConfigError, FileListError, requires_extra
from blendtitan.settings.batches import data_ranks
from blendtitan.settings.toml import read_arguments, read_keys, typed_values
from blendtitan.storage.file_list import read_file_list

CONFIG, DATA, FILE_LIST = "config.toml", "data.toml", "file_list.txt"
TOKENS, OUTPUTS = "tokens", "outputs"
"""Names in a run folder."""

_MODEL_PARALLEL = ("tensor", "context", "pipeline")
"""Kinds of parallelism whose ranks share one replica of the model."""

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
        remedy = "Make a run folder with blendtitan init, or name a TOML file."
        raise ConfigError(f"{path}: there is no such file or run folder. {remedy}")
    return path


def check_run(config: Path, arguments: Sequence[str] = (), *, world_size: int = 1) -> None:
    """Check the settings of a run, its tokenizer and its file list, before any process starts.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, which override the file.
        world_size: Processes of the run.

    Raises:
        BlendTitanError: A key or a value cannot be used, the settings contradict each other, or
            the data of a run folder is not prepared.
    """
    if _is_02():  # its trainer checks the keys
        _check_prepared(config.parent)
        return
    values = read_keys(config) | typed_values(read_arguments(arguments))
    _check_prepared(config.parent)
    shared = (values[f"parallelism.{kind}_parallel_degree"] for kind in _MODEL_PARALLEL)
    ranks = data_ranks(
        world_size,
        replicate=values["parallelism.data_parallel_replicate_degree"],
        shard=values["parallelism.data_parallel_shard_degree"],
        model=math.prod(shared),
    )
    if values["training.dataset"] == "blendcorpus":
        from blendtitan.runs.open import read_run

        run = read_run(config, ranks=ranks, values=values)
        run.tokenizer()
        file_list = Path(run.blend.data_file_list)
        try:
            read_file_list(file_list)
        except FileListError as error:
            if not file_list.exists():
                error.add_note(
                    f"It is blendcorpus.data_file_list of {config}. After a run folder was moved, "
                    f"correct the paths in it and in {DATA}."
                )
            raise


def _check_prepared(folder: Path) -> None:
    if (folder / DATA).is_file() and not (folder / FILE_LIST).is_file():
        raise ConfigError(
            f"{folder / FILE_LIST}: there is no such file, because the data is not prepared. Run "
            f"blendtitan prepare {folder}"
        )


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
    module = f"blendtitan.{'titan02' if _is_02() else 'titan'}.train"
    words = ["-u", "-m", module, "--job.config_file", str(config), *arguments]
    if ranks.nproc == ranks.nnodes == 1:
        os.execve(sys.executable, [sys.executable, *words], os.environ | _ONE_PROCESS)
    with requires_extra("train", "blendtitan train"):
        from blendtitan.start.launch import launch
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    sys.exit(launch(sys.executable, *words, ranks=ranks))


def _is_02() -> bool:
    with requires_extra("train", "blendtitan train"):
        return version("torchtitan").startswith("0.2.")
