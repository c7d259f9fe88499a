"""The sizes of a run: micro batches of every rank, lengths and vocabulary.

The trainer and the tools share it, so both refuse the same runs in the same words.
"""

from blendtitan.config import MAX_INT, MAX_SLOT, check_at_least
from blendtitan.errors import ConfigError
from blendtitan.visible import counted


def data_ranks(world_size: int, *, replicate: int, shard: int, model: int) -> int:
    """Data-parallel ranks among ``world_size`` processes.

    Args:
        world_size: Processes of the run.
        replicate: ``parallelism.data_parallel_replicate_degree``.
        shard: ``parallelism.data_parallel_shard_degree``; -1: all remaining processes.
        model: Processes that share one replica of the model: the product of the tensor, context
            and pipeline degrees.

    Raises:
        ConfigError: The degrees do not multiply to the number of processes.
    """
    fixed = replicate * model * max(1, shard)
    if fixed < 1 or world_size % fixed or (shard != -1 and world_size != fixed):
        expected = f"{fixed:,}" if shard != -1 else f"a multiple of {fixed:,}"
        raise ConfigError(
            f"the run has {counted(world_size, 'process', 'processes')}, expected {expected}: the "
            f"product of the degrees in [parallelism] (replicate {replicate}, shard {shard}, "
            f"tensor x context x pipeline {model}). Change --nproc or a degree."
        )
    return world_size // model


def check_batches(
    global_batch_size: int, *, local_batch_size: int, ranks: int, are_all_ranks: bool = True
) -> None:
    """Check that a global batch is whole micro batches of every data-parallel rank.

    Args:
        global_batch_size: Samples of a step of all ranks together; -1: one micro batch of each.
        local_batch_size: Samples of a micro batch.
        ranks: Data-parallel ranks.
        are_all_ranks: False if the run has an unknown multiple of ``ranks``.

    Raises:
        ConfigError: It is not. The error names the nearest valid sizes.
    """
    check_at_least("training.local_batch_size", local_batch_size, 1)
    part = local_batch_size * ranks
    if global_batch_size == -1 or (global_batch_size >= 1 and global_batch_size % part == 0):
        return
    below = global_batch_size // part * part
    nearest = f"{below:,} and {below + part:,}" if below > 0 else f"{part:,}"
    by = f"training.local_batch_size = {local_batch_size:,}"
    if ranks > 1 or are_all_ranks:
        by += f" x {ranks:,} data-parallel rank{'s' if ranks > 1 else ''}"
    raise ConfigError(
        f"training.global_batch_size is {global_batch_size:,}, expected a multiple of {part:,} "
        f"({by}), or -1 for one micro batch of every rank. Nearest: {nearest}."
    )


def check_validation(*, steps: int, samples: int | None) -> None:
    """Check that a validation reads at least one step."""
    if samples is not None:
        check_at_least("validation.samples", samples, 1)
    if steps != -1 and steps < 1:
        raise ConfigError(
            f"validation.steps is {steps:,}, expected at least 1, or -1 for every window once"
        )


def check_length(steps: int, *, global_batch_size: int, seq_len: int) -> None:
    """Check that the slots and tokens of a run can be counted exactly."""
    check_at_least("training.steps", steps, 0)
    check_at_least("training.seq_len", seq_len, 1)
    most = min(MAX_SLOT, MAX_INT // (seq_len + 1)) // max(1, global_batch_size)
    if steps > most:
        raise ConfigError(
            f"training.steps is {steps:,}, expected at most {most:,}: with {global_batch_size:,} "
            f"samples per step and {seq_len:,} tokens per sample, the order ends there. The order "
            f"does not depend on the number of steps, so choose a smaller number and train longer "
            f"later."
        )


def check_seq_len(seq_len: int, longest: int) -> None:
    """Check that the positions of a model, its RoPE, reach to the end of a sample."""
    if seq_len > longest:
        raise ConfigError(f"training.seq_len is {seq_len:,}, expected at most {longest:,} (RoPE)")


def model_vocab_size(requested: int | None, *, tokenizer_vocab_size: int) -> int:
    """Vocabulary of the model: as requested, if the tokenizer's fits, or the tokenizer's size."""
    if requested is None:
        return -(-tokenizer_vocab_size // 64) * 64  # rounded up, for fast matrix products
    if requested < tokenizer_vocab_size:
        raise ConfigError(
            f"model.vocab_size is {requested}, expected at least {tokenizer_vocab_size}, the "
            f"tokenizer's. Leave model.vocab_size out to follow the tokenizer."
        )
    return requested


def check_on_cpu(*, context_parallel_degree: int) -> None:
    """Check that PyTorch can train in this way on a CPU."""
    if context_parallel_degree > 1:
        raise ConfigError(
            f"parallelism.context_parallel_degree is {context_parallel_degree}, expected 1 on a "
            f"CPU, whose attention PyTorch cannot split."
        )
