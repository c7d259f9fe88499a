"""Configurations by name, for ``--module blendtitan.titan --config NAME``.

A function without arguments that returns a ``BlendTrainer.Config``; write your own module of
them to configure runs in Python.
"""

from blendtitan.titan.assemble import build_config
from blendtitan.titan.toml import read_settings
from blendtitan.titan.trainer import BlendTrainer


def debug() -> BlendTrainer.Config:
    """The demo run, as ``configs/debug.toml`` describes it."""
    return build_config(read_settings(["--job.config_file", "configs/debug.toml"]))
