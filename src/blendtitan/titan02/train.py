"""The entry point of training with TorchTitan 0.2.

    torchrun --nproc_per_node 2 -m blendtitan.titan02.train --job.config_file run.toml

It is TorchTitan's, with our configuration and models; without an accelerator it uses the CPU.
"""

import runpy
import sys

from blendtitan.claims.held import release_claim
from blendtitan.errors import requires_extra
from blendtitan.failures import end, record
from blendtitan.stop_signals import STOP

with requires_extra("train", "training", exits=__name__ == "__main__"):
    from blendtitan.titan.upstream import check_versions, prepare

_OURS = {
    "--job.custom_config_module": "blendtitan.titan02.config",
    "--experimental.custom_import": "blendtitan.titan02.models",
}


def main() -> None:
    """Train with the command line's configuration. An error ends the process as in 0.3."""
    try:
        STOP.watch()
        _train()
    except Exception as error:
        record(error)
        end()
    finally:
        release_claim()


def _train() -> None:
    given = {argument.partition("=")[0].replace("-", "_") for argument in sys.argv[1:]}
    for key, module in _OURS.items():
        if key.replace("-", "_") not in given:
            sys.argv += [key, module]
    # Afterwards, because torchtitan reads the command line when it is imported.
    prepare()
    check_versions("0.2")
    runpy.run_module("torchtitan.train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
