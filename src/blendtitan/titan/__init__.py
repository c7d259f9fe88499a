"""Training with TorchTitan. The only package that imports torchtitan.

A program that does not start at ``blendtitan.titan.train`` calls ``prepare()`` before it imports
torchtitan, or a module of this package.
"""

from typing import TYPE_CHECKING

from blendtitan.errors import requires_extra

if TYPE_CHECKING:
    from blendtitan.titan.upstream import prepare

__all__ = ["prepare"]


def __getattr__(name: str) -> object:
    # The entry point reports missing packages in one line, so this package imports without torch.
    if name == "prepare":
        with requires_extra("train", "blendtitan.titan.prepare"):
            from blendtitan.titan.upstream import prepare

        return prepare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
