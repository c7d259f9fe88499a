"""TorchTitan's models, adapted to the tokenizer's vocabulary and the machine's attention."""

import difflib
import importlib
from collections.abc import Collection
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
from torchtitan.tools.utils import round_up

from blendtitan.errors import ConfigError
from blendtitan.titan.upstream import owner_of, supported_models

AttentionBackend = Literal["flex", "flex_flash", "varlen", "sdpa"]

ExpertBackend = Literal["standard", "deepep", "hybridep", "minimal_async_ep"]

MODELS = sorted(supported_models() - {"flux"})  # flux makes images
"""Values of ``model.name``."""

VOCAB_MULTIPLE = 64
"""The model's vocabulary is rounded up to a multiple of this, for fast matrix products."""


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
    package = _package(name)
    theirs = next(
        value
        for key, value in vars(package).items()
        if key.endswith("_configs") and isinstance(value, dict)
    )
    ours = None
    if flavor not in theirs:
        from blendtitan.titan.flavors import FLAVORS

        flavors = FLAVORS.get(name, {})
        _check_known("model.flavor", flavor, [*theirs, *flavors])
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


def model_vocab_size(requested: int | None, *, tokenizer_vocab_size: int) -> int:
    """Vocabulary of the model: the requested size, or else the tokenizer's, rounded up.

    Raises:
        ConfigError: The requested size is smaller than the tokenizer's.
    """
    if requested is None:
        return round_up(tokenizer_vocab_size, VOCAB_MULTIPLE)
    if requested < tokenizer_vocab_size:
        raise ConfigError(
            f"model.vocab_size is {requested}, expected at least {tokenizer_vocab_size}, the "
            f"tokenizer's. Leave model.vocab_size out to follow the tokenizer."
        )
    return requested


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


def _package(name: str) -> ModuleType:
    _check_known("model.name", name, MODELS)
    try:
        return importlib.import_module(f"torchtitan.models.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model.name is {name!r}, which needs a package that is not installed: {error.name}"
        ) from error


def _check_known(key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        nearest = difflib.get_close_matches(value, known, n=1, cutoff=0)
        raise ConfigError(
            f"{key} is {value!r}, expected one of {', '.join(known)}. Did you mean {nearest[0]}?"
        )


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
