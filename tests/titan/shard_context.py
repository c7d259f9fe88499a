"""Splits the tensors of a batch as TorchTitan does for context parallelism, and keeps the parts.

The arguments are a file of ``input``, ``labels``, ``positions`` and load balancers.
Each rank saves its parts, one dictionary per balancer, to the file ``$RECORD.RANK``.
"""

import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh


def main(path: str, *balancers: str) -> None:
    # Imported here because importing it needs the device to be chosen.
    from torchtitan.distributed.context_parallel import prepare_context_parallel_input

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("cp",))
    batch = torch.load(path)
    parts = {}
    for balancer in balancers:
        inputs, labels, extra = prepare_context_parallel_input(
            batch["input"],
            batch["labels"],
            {"positions": batch["positions"]},
            mesh,
            torch.device("cpu"),
            None if balancer == "none" else balancer,
        )
        parts[balancer] = {"input": inputs, "labels": labels, **extra}
    torch.save(parts, f"{os.environ['RECORD']}.{os.environ['RANK']}")
    dist.destroy_process_group()
