"""Configurations by name, for ``--module blendtitan.titan --config NAME``.

Each is the run that ``configs/NAME.toml`` describes. A function without arguments that returns a
``BlendTrainer.Config``; write your own module of them to configure runs in Python.
"""

from blendtitan.titan import assemble, toml
from blendtitan.titan.trainer import BlendTrainer


def debug() -> BlendTrainer.Config:
    """The demo run: TorchTitan's llama3 debug model."""
    return _of_file("debug")


def llama2_7b() -> BlendTrainer.Config:
    """Llama 2 7B."""
    return _of_file("llama2_7b")


def llama3_1b() -> BlendTrainer.Config:
    """Llama 3.2 1B."""
    return _of_file("llama3_1b")


def llama3_8b() -> BlendTrainer.Config:
    """Llama 3.1 8B."""
    return _of_file("llama3_8b")


def llama3_70b() -> BlendTrainer.Config:
    """Llama 3.1 70B."""
    return _of_file("llama3_70b")


def llama3_405b() -> BlendTrainer.Config:
    """Llama 3.1 405B."""
    return _of_file("llama3_405b")


def qwen3_0_6b() -> BlendTrainer.Config:
    """Qwen3 0.6B."""
    return _of_file("qwen3_0_6b")


def qwen3_1_7b() -> BlendTrainer.Config:
    """Qwen3 1.7B."""
    return _of_file("qwen3_1_7b")


def qwen3_8b() -> BlendTrainer.Config:
    """Qwen3 8B."""
    return _of_file("qwen3_8b")


def qwen3_32b() -> BlendTrainer.Config:
    """Qwen3 32B."""
    return _of_file("qwen3_32b")


def qwen3_30b_a3b() -> BlendTrainer.Config:
    """Qwen3 30B-A3B, a mixture of experts."""
    return _of_file("qwen3_30b_a3b")


def deepseek_v3_16b() -> BlendTrainer.Config:
    """DeepSeek's 16B mixture of experts."""
    return _of_file("deepseek_v3_16b")


def _of_file(name: str) -> BlendTrainer.Config:
    arguments = ["--job.config_file", f"configs/{name}.toml"]
    return assemble.build_config(toml.read_settings(arguments))
