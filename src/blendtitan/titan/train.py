"""The entry point of training.

    torchrun --nproc_per_node 2 -m blendtitan.titan.train --job.config_file configs/debug.toml
    torchrun --nproc_per_node 2 -m blendtitan.titan.train --module MODULE --config NAME

The second form takes a Python function that returns a configuration, as TorchTitan's own entry
point does. Further arguments, ``--section.key value``, win over the file or the function.
"""

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import record

from blendtitan.titan import prepare


@record  # torchrun shows the error of the rank that failed first
def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    prepare()
    # Imported here because it imports torchtitan.
    from blendtitan.titan.training import train

    train(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
