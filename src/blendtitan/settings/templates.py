"""The configurations that come with the project: ``configs/`` in a clone, and in a wheel."""

from pathlib import Path

_IN_WHEEL = Path(__file__).parents[1] / "configs"
_IN_CLONE = Path(__file__).parents[3] / "configs"

TEMPLATES = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CLONE
"""Their folder."""
