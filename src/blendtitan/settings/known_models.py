"""The models of TorchTitan and their flavors, for checks that do not import it.

Written by scripts/write_known_models.py. Do not edit.
"""

from collections.abc import Mapping

TORCHTITAN = "0.3.0"
"""The version that has these models."""

MODELS: Mapping[str, Mapping[str, int]] = {
    "deepseek_v3": {"debugmodel": 16384, "16B": 16384, "236B": 16384, "671B": 16384},
    "gpt_oss": {"debugmodel": 131072, "20b": 131072, "120b": 131072},
    "kimi_k2_7": {
        "debugmodel": 16384,
        "moonlight-16B-A3B": 8192,
        "Kimi-VL-A3B": 131072,
        "Kimi-K2.5": 262144,
    },
    "llama3": {
        "debugmodel": 131072,
        "1B": 131072,
        "3B": 131072,
        "8B": 131072,
        "70B": 131072,
        "405B": 131072,
        "Llama-2-7b": 4096,
    },
    "muse_glimmer": {"debugmodel": 4096, "30B": 16384, "debugmodel_mm": 4096, "30B_mm": 16384},
    "qwen3": {
        "debugmodel": 4096,
        "debugmodel_non_fused_qkv": 4096,
        "0.6B": 40960,
        "1.7B": 40960,
        "4B": 40960,
        "8B": 40960,
        "14B": 40960,
        "32B": 40960,
        "debugmodel_moe": 4096,
        "30B-A3B": 40960,
        "235B-A22B": 40960,
    },
    "qwen3_5": {},
}
"""``model.name`` to ``model.flavor`` to the longest ``training.seq_len``. A model has no flavors
here if it needs packages that were not installed."""
