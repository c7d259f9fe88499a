"""Whether a model can mask documents. Imported only with intra-document masking."""

from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

from blendtitan.errors import ConfigError
from blendtitan.titan import cpu
from blendtitan.titan.model import is_varlen, reads_positions


def check_masks(spec: ModelSpec, config: Trainer.Config) -> None:
    """Check that the attention can mask documents.

    Raises:
        ConfigError: The attention cannot mask documents in this configuration.
    """
    if not reads_positions(spec):
        backends = "no other backend trains on a CPU" if cpu.is_used() else "flex and varlen can"
        raise ConfigError(
            f"blendcorpus.provide_attention_mask = true, but SDPA attention has no masks and "
            f"cannot separate documents ({backends}). Set blendcorpus.provide_attention_mask = "
            f"false, or another model.attn_backend."
        )
    if not is_varlen(spec):
        return
    if config.parallelism.context_parallel_degree > 1:
        raise ConfigError(
            "model.attn_backend = 'varlen' cannot be split by context parallelism. Set it to "
            "'flex', or parallelism.context_parallel_degree to 1."
        )
    if not config.training.disable_cuda_graphs:
        raise ConfigError(
            "training.disable_cuda_graphs is false, expected true with model.attn_backend = "
            "'varlen' and blendcorpus.provide_attention_mask: the number of documents differs "
            "between batches, which a CUDA graph cannot follow. Set it, or model.attn_backend = "
            "'flex'."
        )
