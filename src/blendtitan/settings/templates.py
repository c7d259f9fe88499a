"""Files that come with the project: in folders of a clone, and inside the package in a wheel."""

from importlib.metadata import metadata
from pathlib import Path


def _folder(name: str) -> Path:
    in_wheel = Path(__file__).parents[1] / name
    return in_wheel if in_wheel.is_dir() else Path(__file__).parents[3] / name


TEMPLATES = _folder("configs")
"""Folder of the configurations."""

LAUNCH_SCRIPTS = _folder("launch")
"""Folder of the job scripts for schedulers."""


def page_url(name: str) -> str:
    """The address of a page of the documentation, for the installed release."""
    package = metadata("blendtitan")
    for url in package.get_all("Project-URL", []):
        label, _, address = url.partition(", ")
        if label == "Repository":
            return f"{address}/blob/v{package['Version']}/docs/{name}.md"
    return f"docs/{name}.md of the project"  # installed by a packager who left out its address
