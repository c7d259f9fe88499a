"""Batches in samples. TorchTitan's main branch counts them in tokens."""

from typing import Any

from blendtitan.errors import ConfigError


def sizes_of_tokens(config: Any) -> tuple[int, int, int]:
    """Length of a sample, samples of one rank in one pass, and of a step of all ranks or -1.

    A pass is all micro batches of a pipeline.

    Raises:
        ConfigError: A number of tokens is not whole samples.
    """
    training, parallelism = config.training, config.parallelism
    seq_len, step = training.max_context_length, training.num_tokens_per_train_step
    micro_batch = whole_samples(
        "training.num_tokens_per_microbatch_per_dp_rank",
        training.num_tokens_per_microbatch_per_dp_rank,
        seq_len,
    )
    passes = parallelism.num_pp_microbatches if parallelism.pipeline_parallel_degree > 1 else 1
    if step > 0:
        step = whole_samples("training.num_tokens_per_train_step", step, seq_len)
    return seq_len, micro_batch * passes, step


def whole_samples(name: str, num_tokens: int, seq_len: int) -> int:
    """Number of samples of ``seq_len`` tokens.

    Raises:
        ConfigError: They are not whole.
    """
    if num_tokens % seq_len:
        raise ConfigError(
            f"{name} is {num_tokens:,}, expected a multiple of {seq_len:,}, the tokens of a sample "
            f"(training.max_context_length)"
        )
    return num_tokens // seq_len
