"""The time that the guards of a run take in each step, beside the step itself.

    torchrun --nproc_per_node 2 benchmarks/guards.py [--steps 300] [--size 1024]

A step is a product of two matrices and an all-reduce of the result, as gradients are reduced. Steps
with and without guards alternate in blocks of 20. The time of the processor in the guards' code
does not depend on other work.
"""

import argparse
import os
import time
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from blendtitan.titan import prepare

prepare()  # before torchtitan is imported

from blendtitan.settings.guards import GuardSettings  # noqa: E402
from blendtitan.titan import guards  # noqa: E402

BLOCK = 20


def main() -> None:
    """Print the results of rank 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    is_cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if is_cuda else torch.device("cpu")
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if is_cuda else "gloo")
    training = SimpleNamespace(steps=10**9)
    trainer: Any = SimpleNamespace(step=0, device=device, checkpointer=SimpleNamespace())
    validator = SimpleNamespace(enable=False)
    trainer.config = SimpleNamespace(guards=GuardSettings(), training=training, validator=validator)
    guard = guards.Guards(trainer)
    guard._question = guards.Question(device)  # also with one rank
    a = torch.rand(options.size, options.size, device=device) / options.size
    spent, busy, seconds = 0.0, 0.0, {True: 0.0, False: 0.0}
    for step in range(-2 * BLOCK, options.steps):
        trainer.step += 1
        guarded = step // BLOCK % 2 == 0
        if step % BLOCK == 0:
            if is_cuda:
                torch.cuda.synchronize()
            dist.barrier()
        began, busy_before = time.perf_counter(), time.thread_time()
        if guarded:
            guard.before_step()
        inside, busy_inside = time.perf_counter() - began, time.thread_time() - busy_before
        b = a @ a
        for _ in range(40 if is_cuda else 0):
            b = a @ b
        dist.all_reduce(b)
        loss = b.sum()
        if guarded:
            start, busy_before = time.perf_counter(), time.thread_time()
            guard.losses.add(loss)
            guard.after_step()
            inside += time.perf_counter() - start
            busy_inside += time.thread_time() - busy_before
        if step % BLOCK == BLOCK - 1 and is_cuda:
            torch.cuda.synchronize()
        if step >= 0:
            seconds[guarded] += time.perf_counter() - began
            spent += inside
            busy += busy_inside
    if dist.get_rank() == 0:
        with_guards = seconds[True] / options.steps * 2e3
        without = seconds[False] / options.steps * 2e3
        inside = spent / options.steps * 2e6
        print(
            f"{device.type}, {dist.get_world_size()} ranks: {without:.3f} ms per step without, "
            f"{with_guards:.3f} ms with guards; {inside:.0f} us per step in their code, "
            f"{busy / options.steps * 2e6:.0f} us of the processor"
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
