"""Configurations by name, for ``--module blendtitan.titan --config NAME``.

Each is the run of ``configs/NAME.toml``, as a function without arguments that returns a
``BlendTrainer.Config``. Write a module of such functions to configure runs in Python.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from blendtitan.titan import assemble, toml
from blendtitan.titan.trainer import BlendTrainer

_FOLDER = Path("configs")


def __dir__() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def __getattr__(name: str) -> Callable[[], BlendTrainer.Config]:
    if name.startswith("_") or (_FOLDER.is_dir() and name not in __dir__()):
        raise AttributeError(name)
    return partial(_read, name)


def _read(name: str) -> BlendTrainer.Config:
    arguments = ["--job.config_file", f"{_FOLDER / name}.toml"]
    return assemble.build_config(toml.read_settings(arguments))
