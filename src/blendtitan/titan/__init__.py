"""Training with TorchTitan. The only package that imports torchtitan."""

from blendtitan.titan import cpu, old_torch

# Before torchtitan is imported, which every module of this package does.
old_torch.complete()
cpu.choose_device()
