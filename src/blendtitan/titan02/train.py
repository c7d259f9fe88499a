"""The entry point of training with TorchTitan 0.2.

    torchrun --nproc_per_node 2 -m blendtitan.titan02.train --job.config_file run.toml

It is TorchTitan's, with our configuration and models; without an accelerator it uses the CPU.
"""

import importlib
import runpy
import sys
from unittest import mock

from blendtitan.titan.upstream import CpuDevice, has_accelerator

_OURS = {
    "--job.custom_config_module": "blendtitan.titan02.config",
    "--experimental.custom_import": "blendtitan.titan02.models",
}


def main() -> None:
    """Train as the command line says."""
    given = {argument.partition("=")[0].replace("-", "_") for argument in sys.argv[1:]}
    for key, module in _OURS.items():
        if key.replace("-", "_") not in given:
            sys.argv += [key, module]
    # Afterwards, because torchtitan reads the command line when it is imported.
    import_torchtitan()
    runpy.run_module("torchtitan.train", run_name="__main__", alter_sys=True)


def import_torchtitan() -> None:
    """Import torchtitan so that it uses the CPU where there is no accelerator.

    Its modules copy the device when they are imported, and importing any imports most of them.
    """
    if has_accelerator():
        return
    with (
        mock.patch("torch._utils._get_available_device_type", return_value="cpu"),
        mock.patch("torch._utils._get_device_module", return_value=CpuDevice),
    ):
        importlib.import_module("torchtitan.tools.utils")


if __name__ == "__main__":
    main()
