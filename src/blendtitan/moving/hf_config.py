"""The ``config.json`` of a model for Hugging Face's transformers, from TorchTitan's configuration.

To support another model, add a function to ``CONFIGS``, and the model to the test that compares
logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

from blendtitan.errors import ConfigError
from blendtitan.tokenizers import ABSENT, Tokenizer


def hf_config(name: str, flavor: str, model: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``config.json`` for one of TorchTitan's decoders.

    Args:
        name: TorchTitan's name of the model.
        flavor: TorchTitan's name of its size.
        model: Its ``Decoder.Config``.
        tokenizer: The run's tokenizer, which has BOS and EOS.

    Raises:
        ConfigError: The model has no known counterpart in transformers.
    """
    if reason := _why_not(name, model):
        raise ConfigError(
            f"model {name} {flavor} cannot be exported: {reason}. Supported are the dense models "
            f"of llama3 and qwen3, and deepseek_v3 671B and kimi_k2_7 moonlight-16B-A3B."
        )
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    present = {key: None if token == ABSENT else token for key, token in special.items()}
    return CONFIGS[name](model) | present


def _why_not(name: str, model: Any) -> str | None:
    moes = [layer.moe for layer in model.layers if layer.moe is not None]
    if any(moe.router.score_func == "softmax" for moe in moes):
        # Load balancing changes the biases at every step, so they are never zero.
        return (
            "its routers choose experts by softmax scores plus a bias per expert, and the routers "
            "of its counterpart in transformers do not"
        )
    if getattr(model, "vision_encoder", None) is not None:
        return "it has a vision encoder"
    return None if name in CONFIGS else "its config.json for transformers is not known"


def _shared(model: Any) -> dict[str, Any]:
    """Keys that all of these decoders have."""
    attention = model.layers[0].attention
    rope = attention.rope
    return {
        "hidden_act": "silu",
        "hidden_size": model.dim,
        "intermediate_size": model.layers[0].feed_forward.w1.out_features,
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": attention.n_heads,
        "vocab_size": model.vocab_size,
        "rms_norm_eps": model.norm.eps,
        "tie_word_embeddings": model.enable_weight_tying,
        "max_position_embeddings": rope.max_seq_len,
        "attention_bias": False,
        "rope_theta": float(rope.theta),
        "rope_scaling": _rope_scaling(rope),
    }


def _grouped_heads(model: Any) -> dict[str, Any]:
    """Keys of grouped-query attention."""
    attention = model.layers[0].attention
    return {
        "num_key_value_heads": attention.n_kv_heads or attention.n_heads,
        "head_dim": attention.head_dim or model.dim // attention.n_heads,
    }


def _rope_scaling(rope: Any) -> dict[str, Any] | None:
    if rope.scaling == "llama":
        return {
            "rope_type": "llama3",
            "factor": float(rope.scaling_factor),
            "low_freq_factor": float(rope.low_freq_factor),
            "high_freq_factor": float(rope.high_freq_factor),
            "original_max_position_embeddings": rope.original_max_position_embeddings,
        }
    if rope.scaling == "yarn" and rope.rope_factor > 1:
        return {
            "rope_type": "yarn",
            "factor": float(rope.rope_factor),
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "truncate": rope.truncate,
            "original_max_position_embeddings": rope.original_seq_len,
        }
    return None


def _llama3(model: Any) -> dict[str, Any]:
    names = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}
    return names | _shared(model) | _grouped_heads(model)


def _qwen3(model: Any) -> dict[str, Any]:
    names = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    return names | _shared(model) | _grouped_heads(model)


def _deepseek_v3(model: Any) -> dict[str, Any]:
    """Multi-head latent attention, and experts chosen by sigmoid scores plus a bias."""
    attention, moe = model.layers[0].attention, model.layers[-1].moe
    router, hidden = moe.router, moe.routed_experts.inner_experts.hidden_dim
    keys = _shared(model) | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "num_key_value_heads": attention.n_heads,
        "q_lora_rank": attention.q_lora_rank or None,
        "kv_lora_rank": attention.kv_lora_rank,
        "qk_nope_head_dim": attention.qk_nope_head_dim,
        "qk_rope_head_dim": attention.qk_rope_head_dim,
        "v_head_dim": attention.v_head_dim,
        "rope_interleave": True,
        "first_k_dense_replace": sum(layer.moe is None for layer in model.layers),
        "moe_intermediate_size": hidden,
        "n_routed_experts": moe.num_experts,
        "n_shared_experts": moe.shared_experts.w1.out_features // hidden,
        "num_experts_per_tok": router.top_k,
        "n_group": router.num_expert_groups or 1,
        "topk_group": router.num_limited_groups or 1,
        "norm_topk_prob": router.route_norm,
        "routed_scaling_factor": router.route_scale,
        "num_nextn_predict_layers": 0,
    }
    if scaling := keys["rope_scaling"]:
        scaling |= dict.fromkeys(("mscale", "mscale_all_dim"), attention.mscale)
        longest = scaling["factor"] * scaling["original_max_position_embeddings"]
        keys["max_position_embeddings"] = int(longest)
    return keys


CONFIGS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "llama3": _llama3,
    "qwen3": _qwen3,
    "deepseek_v3": _deepseek_v3,
    "kimi_k2_7": _deepseek_v3,  # its language model
}
"""``model.name`` to a function of TorchTitan's configuration."""
