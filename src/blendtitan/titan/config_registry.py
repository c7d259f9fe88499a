"""Configurations by name, for ``--module blendtitan.titan --config NAME``.

Each is the run of ``configs/NAME.toml``, as a function without arguments that returns a
``BlendTrainer.Config``. Write a module of such functions to configure runs in Python.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from blendtitan.titan import assemble, toml
from blendtitan.titan.trainer import BlendTrainer

_WORKING = Path("configs")
_FOLDERS = (_WORKING, Path(__file__).parents[1] / "configs")
"""The working directory comes first. A wheel contains the project's configurations."""


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in _FOLDERS[::-1] for path in folder.glob("*.toml")}


def __dir__() -> list[str]:
    return sorted(_files())


def __getattr__(name: str) -> Callable[[], BlendTrainer.Config]:
    files = _files()
    if name.startswith("_") or (files and name not in files):
        raise AttributeError(name)
    return partial(_read, files.get(name, _WORKING / f"{name}.toml"))


def _read(path: Path) -> BlendTrainer.Config:
    return assemble.build_config(toml.read_settings(["--job.config_file", str(path)]))
