"""The batch arithmetic of a run: whole micro batches for every rank, and a length in range."""

from blendtitan.config import MAX_INT, MAX_SLOT, check_at_least
from blendtitan.errors import ConfigError


def data_ranks(world_size: int, *, replicate: int, shard: int, model: int) -> int:
    """Data-parallel ranks among ``world_size`` processes.

    Args:
        world_size: Processes of the run.
        replicate: ``parallelism.data_parallel_replicate_degree``.
        shard: ``parallelism.data_parallel_shard_degree``; -1: all processes that are left.
        model: Processes that share one replica of the model: the product of the tensor, context
            and pipeline degrees.

    Raises:
        ConfigError: The degrees do not multiply to the number of processes.
    """
    fixed = replicate * model * max(1, shard)
    if fixed < 1 or world_size % fixed or (shard != -1 and world_size != fixed):
        expected = f"{fixed:,}" if shard != -1 else f"a multiple of {fixed:,}"
        raise ConfigError(
            f"the run has {world_size:,} processes, expected {expected}: the product of the "
            f"degrees in [parallelism] (data_parallel_replicate_degree = {replicate}, "
            f"data_parallel_shard_degree = {shard}, tensor x context x pipeline = {model}). Start "
            f"another number of processes, or change a degree."
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
        are_all_ranks: False where the run has a multiple of ``ranks`` that is not known.

    Raises:
        ConfigError: It is not. The error names the nearest sizes that are.
    """
    check_at_least("training.local_batch_size", local_batch_size, 1)
    if global_batch_size == -1:
        return
    part = local_batch_size * ranks
    if global_batch_size >= 1 and global_batch_size % part == 0:
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
    """Check how much a validation reads.

    Raises:
        ConfigError: ``validation.samples`` or ``validation.steps`` reads nothing.
    """
    if samples is not None:
        check_at_least("validation.samples", samples, 1)
    if steps != -1 and steps < 1:
        raise ConfigError(
            f"validation.steps is {steps:,}, expected at least 1, or -1 for every window once"
        )


def check_length(steps: int, *, global_batch_size: int, seq_len: int) -> None:
    """Check that the slots and tokens of a run can be counted exactly.

    Raises:
        ConfigError: There are too many.
    """
    check_at_least("training.steps", steps, 0)
    check_at_least("training.seq_len", seq_len, 1)
    most = min(MAX_SLOT, MAX_INT // (seq_len + 1)) // max(1, global_batch_size)
    if steps > most:
        raise ConfigError(
            f"training.steps is {steps:,}, expected at most {most:,}: with {global_batch_size:,} "
            f"samples a step and {seq_len:,} tokens a sample, the order is defined no further. It "
            f"does not depend on the number of steps, so choose a smaller one and train longer "
            f"later."
        )
