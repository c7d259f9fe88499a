"""Sizes of TorchTitan's models that its registries lack, in the form of its registries.

To add one, write a function of the attention backend and add it to ``FLAVORS``.
"""

from collections.abc import Callable, Mapping

from torchtitan.models import llama3
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm, compute_ffn_hidden_dim
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.llama3 import Llama3Model


def _llama2_7b(attn_backend: str) -> Decoder.Config:
    """Llama 2 7B. Source: the ``config.json`` of its release, and https://arxiv.org/abs/2307.09288.

    It is Llama 3 with as many key as query heads, and without scaled rotary frequencies.
    """
    dim, n_heads, vocab_size = 4096, 32, 32000
    return Llama3Model.Config(
        dim=dim,
        vocab_size=vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab_size, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT
        ),
        norm=RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
        lm_head=Linear.Config(
            in_features=dim, out_features=vocab_size, param_init=llama3._output_linear_init(dim)
        ),
        layers=llama3._build_llama3_layers(
            n_layers=32,
            dim=dim,
            n_heads=n_heads,
            hidden_dim=compute_ffn_hidden_dim(dim, multiple_of=256),
            rope=ComplexRoPE.Config(dim=dim // n_heads, max_seq_len=4096, theta=10000.0),
            attn_backend=attn_backend,
        ),
    )


FLAVORS: Mapping[str, Mapping[str, Callable[[str], Decoder.Config]]] = {
    "llama3": {"Llama-2-7b": _llama2_7b},
}
"""``model.name`` to ``model.flavor`` to the model, for an attention backend."""
