"""``blendtitan train``: start the processes of a run on this machine."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from blendtitan.errors import ConfigError, requires_extra
from blendtitan.settings.toml import read_values
from blendtitan.start.folder import DATA, FILE_LIST

_ONE_PROCESS = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "0",
}
"""Environment that torchrun sets. A run of one process starts sooner without torchrun."""


def check_run(config: Path) -> None:
    """Check the keys and values of a TOML file, and its data, before any process starts.

    Raises:
        ConfigError: A key or a value cannot be used, or the data of a run folder is not prepared.
    """
    if not _is_02():
        read_values(config)
    folder = config.parent
    if (folder / DATA).is_file() and not (folder / FILE_LIST).is_file():
        raise ConfigError(
            f"{folder / FILE_LIST}: there is no such file, because the data is not prepared. Run "
            f"blendtitan prepare {folder}"
        )


def training_command(
    config: Path, arguments: Sequence[str], *, nproc: int | None
) -> tuple[list[str], dict[str, str]]:
    """The command that trains, and the environment variables that it needs.

    Args:
        config: The run's TOML file.
        arguments: ``--section.key value``, as the trainer takes them.
        nproc: Processes. None: one per accelerator, or one.

    Raises:
        MissingExtraError: PyTorch or TorchTitan is not installed.
        ConfigError: ``nproc`` is below 1.
    """
    if nproc is None:
        with requires_extra("train", "blendtitan train"):
            import torch
        nproc = max(1, torch.accelerator.device_count())
    if nproc < 1:
        raise ConfigError(f"--nproc is {nproc}, expected at least 1")
    package = "titan02" if _is_02() else "titan"
    run = ["-m", f"blendtitan.{package}.train", "--job.config_file", str(config), *arguments]
    environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    if nproc == 1:
        return [sys.executable, *run], environment | _ONE_PROCESS
    shown = os.environ.get("LOG_RANK", "0")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(nproc)]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    launcher += ["--local-ranks-filter", shown, "--role", "rank", "--tee", "3"]
    return [sys.executable, *launcher, *run], environment


def _is_02() -> bool:
    with requires_extra("train", "blendtitan train"):
        return version("torchtitan").startswith("0.2.")
