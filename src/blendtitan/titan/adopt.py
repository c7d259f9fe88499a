"""The former name of ``with_blend``, for configurations written for it."""

from blendtitan.titan.with_blend import with_blend

__all__ = ["with_blend"]
