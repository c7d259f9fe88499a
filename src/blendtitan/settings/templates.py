"""Files that come with the project: in folders of a clone, and inside the package in a wheel."""

from pathlib import Path


def _folder(name: str) -> Path:
    in_wheel = Path(__file__).parents[1] / name
    return in_wheel if in_wheel.is_dir() else Path(__file__).parents[3] / name


TEMPLATES = _folder("configs")
"""Folder of the configurations."""

LAUNCH_SCRIPTS = _folder("launch")
"""Folder of the job scripts for schedulers."""
