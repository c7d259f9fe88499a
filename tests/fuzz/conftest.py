"""TorchTitan is imported before warnings are errors."""

import warnings

from tests import titan

__all__ = ["titan"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's own
    import blendtitan.titan.toml  # noqa: F401
