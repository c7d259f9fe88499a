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

LINEAR: Mapping[str, Mapping[str, int]] = {
    "deepseek_v3": {"debugmodel": 3894, "16B": 36225, "236B": 17076, "671B": 29310},
    "gpt_oss": {"debugmodel": 4744, "20b": 34564, "120b": 33382},
    "kimi_k2_7": {
        "debugmodel": 3894,
        "moonlight-16B-A3B": 36253,
        "Kimi-VL-A3B": 36253,
        "Kimi-K2.5": 50317,
    },
    "llama3": {
        "debugmodel": 24664,
        "1B": 37698,
        "3B": 37341,
        "8B": 57250,
        "70B": 106050,
        "405B": 195578,
        "Llama-2-7b": 53410,
    },
    "muse_glimmer": {"debugmodel": 19332, "30B": 122151, "debugmodel_mm": 19458, "30B_mm": 131174},
    "qwen3": {
        "debugmodel": 3920,
        "debugmodel_non_fused_qkv": 3920,
        "0.6B": 9967,
        "1.7B": 29150,
        "4B": 26864,
        "8B": 50662,
        "14B": 67714,
        "32B": 60771,
        "debugmodel_moe": 5080,
        "30B-A3B": 15222,
        "235B-A22B": 27882,
    },
    "qwen3_5": {},
}
"""``model.name`` to ``model.flavor`` to the cost of a token in all matrices, in units of the
attention between two tokens, for a vocabulary of 128,000."""
