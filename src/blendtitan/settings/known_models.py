"""The models of TorchTitan and their flavors, for checks that do not import it.

Written by scripts/write_known_models.py. Do not edit.
"""

from collections.abc import Mapping
from typing import NamedTuple

TORCHTITAN = "0.3.0"
"""The version that has these models."""


class Flavor(NamedTuple):
    """One size of a model."""

    max_seq_len: int
    """The longest ``training.seq_len``."""
    linear_cost: int
    """The cost of a token in all matrices, in units of the attention between two tokens, for a
    vocabulary of 128,000."""


MODELS: Mapping[str, Mapping[str, Flavor]] = {
    "deepseek_v3": {
        "debugmodel": Flavor(max_seq_len=16384, linear_cost=3894),
        "16B": Flavor(max_seq_len=16384, linear_cost=36225),
        "236B": Flavor(max_seq_len=16384, linear_cost=17076),
        "671B": Flavor(max_seq_len=16384, linear_cost=29310),
    },
    "gpt_oss": {
        "debugmodel": Flavor(max_seq_len=131072, linear_cost=4744),
        "20b": Flavor(max_seq_len=131072, linear_cost=34564),
        "120b": Flavor(max_seq_len=131072, linear_cost=33382),
    },
    "kimi_k2_7": {
        "debugmodel": Flavor(max_seq_len=16384, linear_cost=3894),
        "moonlight-16B-A3B": Flavor(max_seq_len=8192, linear_cost=36253),
        "Kimi-VL-A3B": Flavor(max_seq_len=131072, linear_cost=36253),
        "Kimi-K2.5": Flavor(max_seq_len=262144, linear_cost=50317),
    },
    "llama3": {
        "debugmodel": Flavor(max_seq_len=131072, linear_cost=24664),
        "1B": Flavor(max_seq_len=131072, linear_cost=37698),
        "3B": Flavor(max_seq_len=131072, linear_cost=37341),
        "8B": Flavor(max_seq_len=131072, linear_cost=57250),
        "70B": Flavor(max_seq_len=131072, linear_cost=106050),
        "405B": Flavor(max_seq_len=131072, linear_cost=195578),
        "Llama-2-7b": Flavor(max_seq_len=4096, linear_cost=53410),
    },
    "muse_glimmer": {
        "debugmodel": Flavor(max_seq_len=4096, linear_cost=19332),
        "30B": Flavor(max_seq_len=16384, linear_cost=122151),
        "debugmodel_mm": Flavor(max_seq_len=4096, linear_cost=19458),
        "30B_mm": Flavor(max_seq_len=16384, linear_cost=131174),
    },
    "qwen3": {
        "debugmodel": Flavor(max_seq_len=4096, linear_cost=3920),
        "debugmodel_non_fused_qkv": Flavor(max_seq_len=4096, linear_cost=3920),
        "0.6B": Flavor(max_seq_len=40960, linear_cost=9967),
        "1.7B": Flavor(max_seq_len=40960, linear_cost=29150),
        "4B": Flavor(max_seq_len=40960, linear_cost=26864),
        "8B": Flavor(max_seq_len=40960, linear_cost=50662),
        "14B": Flavor(max_seq_len=40960, linear_cost=67714),
        "32B": Flavor(max_seq_len=40960, linear_cost=60771),
        "debugmodel_moe": Flavor(max_seq_len=4096, linear_cost=5080),
        "30B-A3B": Flavor(max_seq_len=40960, linear_cost=15222),
        "235B-A22B": Flavor(max_seq_len=40960, linear_cost=27882),
    },
    "qwen3_5": {},
}
"""``model.name`` to ``model.flavor``. A model has no flavors here if it needs packages that were
not installed."""

WITH_EXPERTS = frozenset(["deepseek_v3", "gpt_oss", "kimi_k2_7", "qwen3"])
"""Models whose experts are balanced outside the optimizer."""
