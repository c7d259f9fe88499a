"""Training with TorchTitan. The only package that imports torchtitan.

A program that does not start at ``blendtitan.titan.train`` calls ``prepare()`` before it imports
torchtitan, or a module of this package.
"""

from blendtitan.titan.upstream import prepare

__all__ = ["prepare"]
