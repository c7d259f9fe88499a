"""TorchTitan's models, adapted to the tokenizer's vocabulary and the machine's attention."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Literal, cast

from torchtitan.models.common.attention import (
    FlexAttention,
    ScaledDotProductAttention,
    VarlenAttention,
)
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.embedding import Embedding
from torchtitan.models.common.moe import GroupedExperts
from torchtitan.protocols.model_spec import ModelSpec

from blendtitan.errors import ConfigError
from blendtitan.settings.toml import check_known
from blendtitan.titan.upstream import owner_of, supported_models

AttentionBackend = Literal["flex", "flex_flash", "varlen", "sdpa"]

ExpertBackend = Literal["standard", "deepep", "hybridep", "minimal_async_ep"]

MODELS = sorted(supported_models() - {"flux"})  # flux makes images
"""Values of ``model.name``."""


def build_model_spec(
    name: str,
    flavor: str,
    *,
    vocab_size: int,
    attn_backend: AttentionBackend = "flex",
    expert_backend: ExpertBackend = "standard",
) -> ModelSpec:
    """One of TorchTitan's decoders, for a vocabulary and an attention backend.

    Raises:
        ConfigError: The model, flavor or backend does not exist.
    """
    package, theirs = _package(name), flavors_of(name)
    ours = None
    if flavor not in theirs:
        from blendtitan.titan.flavors import FLAVORS

        flavors = FLAVORS.get(name, {})
        check_known("model.flavor", flavor, [*theirs, *flavors])
        ours = flavors[flavor]
    registered = flavor if ours is None else next(iter(theirs))
    backend = "flex" if attn_backend == "sdpa" else attn_backend
    try:
        spec = package.model_registry(registered, attn_backend=backend)
        if expert_backend != "standard":
            _check_experts(spec, expert_backend)
            backends = {"attn_backend": backend, "moe_comm_backend": expert_backend}
            spec = package.model_registry(registered, **backends)
    except ValueError as error:
        raise ConfigError(
            f"model {name} {flavor} with model.attn_backend = {attn_backend!r} and "
            f"parallelism.expert_parallel_comm_backend = {expert_backend!r}: {error}"
        ) from error
    if ours is not None:
        spec.flavor, spec.model = flavor, ours(backend)
    if attn_backend == "sdpa":
        use_sdpa(spec)
    _set_vocab_size(decoder_config(spec), vocab_size)
    return spec


def decoder_config(spec: ModelSpec) -> Decoder.Config:
    """The model's configuration.

    Raises:
        ConfigError: The model is not a decoder of tokens.
    """
    if not isinstance(spec.model, Decoder.Config):
        raise ConfigError(f"model.name is {spec.name!r}, expected a language model")
    return spec.model


def reads_positions(spec: ModelSpec) -> bool:
    """Whether the attention builds its masks from positions, and so can mask documents."""
    return bool(_masked_attention(spec))


def is_varlen(spec: ModelSpec) -> bool:
    """Whether the attention takes the starts of documents instead of a mask."""
    return any(spec.traverse(VarlenAttention.Config))


def use_sdpa(spec: ModelSpec) -> bool:
    """Replace masked attention by causal SDPA, in place; return whether there was any.

    Raises:
        ConfigError: The model's masks are more than causal, so SDPA would train another model.
    """
    masked = _masked_attention(spec)
    owner = cast(type[Decoder], owner_of(decoder_config(spec)))
    if masked and owner.get_attention_masks is not Decoder.get_attention_masks:
        raise ConfigError(
            f"model {spec.name} needs its own attention masks, which SDPA does not support. "
            f"Train it on an accelerator, with model.attn_backend = 'flex'."
        )
    for parent, name in masked:
        setattr(parent, name, ScaledDotProductAttention.Config())
    return bool(masked)


def _masked_attention(spec: ModelSpec) -> list[tuple[object, str]]:
    """Object and field of every attention that reads masks."""
    return [
        (parent, str(name))
        for kind in (FlexAttention.Config, VarlenAttention.Config)
        for _, _, parent, name in spec.traverse(kind)
    ]


def flavors_of(name: str) -> Mapping[str, object]:
    """TorchTitan's flavors of a model."""
    values = vars(_package(name)).items()
    return next(v for key, v in values if key.endswith("_configs") and isinstance(v, dict))


def _package(name: str) -> ModuleType:
    check_known("model.name", name, MODELS)
    try:
        return importlib.import_module(f"torchtitan.models.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model.name is {name!r}, which needs a package that is not installed: {error.name}"
        ) from error


def _check_experts(spec: ModelSpec, expert_backend: ExpertBackend) -> None:
    if not any(spec.traverse(GroupedExperts.Config)):
        raise ConfigError(
            f"parallelism.expert_parallel_comm_backend is {expert_backend!r}, expected 'standard': "
            f"{spec.name} {spec.flavor} has no experts."
        )


def _set_vocab_size(model: Decoder.Config, vocab_size: int) -> None:
    model.vocab_size = vocab_size
    model.lm_head.out_features = vocab_size
    # In some models it is a part of a larger module.
    for _, embedding, _, _ in model.tok_embeddings.traverse(Embedding.Config):
        cast(Embedding.Config, embedding).num_embeddings = vocab_size
