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
    if name not in CONFIGS or not _is_dense(model):
        raise ConfigError(
            f"model {name} {flavor} cannot be exported: its config.json for transformers is not "
            f"known. Supported are the dense models of {', '.join(sorted(CONFIGS))}."
        )
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    present = {key: None if token == ABSENT else token for key, token in special.items()}
    return CONFIGS[name](model) | present


def _is_dense(model: Any) -> bool:
    return all(layer.feed_forward is not None for layer in model.layers)


def _shared(model: Any) -> dict[str, Any]:
    """What all of these decoders have."""
    layer = model.layers[0]
    attention, rope = layer.attention, layer.attention.rope
    return {
        "hidden_act": "silu",
        "hidden_size": model.dim,
        "intermediate_size": layer.feed_forward.w1.out_features,
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads or attention.n_heads,
        "head_dim": attention.head_dim or model.dim // attention.n_heads,
        "vocab_size": model.vocab_size,
        "rms_norm_eps": model.norm.eps,
        "tie_word_embeddings": model.enable_weight_tying,
        "max_position_embeddings": rope.max_seq_len,
        "attention_bias": False,
        "rope_theta": float(rope.theta),
        "rope_scaling": _rope_scaling(rope),
    }


def _rope_scaling(rope: Any) -> dict[str, Any] | None:
    if rope.scaling == "none":
        return None
    if rope.scaling != "llama":
        raise ConfigError(
            f"the model scales rotary frequencies by {rope.scaling!r}, which cannot be exported. "
            f"Supported are 'none' and 'llama'."
        )
    return {
        "rope_type": "llama3",
        "factor": float(rope.scaling_factor),
        "low_freq_factor": float(rope.low_freq_factor),
        "high_freq_factor": float(rope.high_freq_factor),
        "original_max_position_embeddings": rope.original_max_position_embeddings,
    }


def _llama3(model: Any) -> dict[str, Any]:
    names = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}
    return names | _shared(model)


def _qwen3(model: Any) -> dict[str, Any]:
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"} | _shared(model)


CONFIGS: Mapping[str, Callable[[Any], dict[str, Any]]] = {"llama3": _llama3, "qwen3": _qwen3}
"""``model.name`` to a function of TorchTitan's configuration."""
