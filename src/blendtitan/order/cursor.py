"""The place of a run in the global order: consumed samples and ranks to slots."""

from blendtitan.errors import ConfigError


def rank_slots(
    consumed_samples: int, *, micro_batch: int, dp_rank: int, dp_world_size: int
) -> range:
    """Slots of the global order that one rank reads for its next micro batch.

    The ranks together read ``micro_batch * dp_world_size`` consecutive slots, rank ``r`` the
    ``r``-th run of ``micro_batch``. So ``consumed_samples`` is the whole state of the loader,
    on any number of ranks.

    Raises:
        ConfigError: ``dp_rank`` is not below ``dp_world_size``.
    """
    if not 0 <= dp_rank < dp_world_size:
        raise ConfigError(f"dp_rank is {dp_rank}, expected 0 to {dp_world_size - 1}")
    start = consumed_samples + dp_rank * micro_batch
    return range(start, start + micro_batch)


def consumed_by_steps(step: int, global_batch_size: int) -> int:
    """Consumed samples after ``step`` optimizer steps of ``global_batch_size`` samples.

    Raises:
        ConfigError: ``step`` is below 0 or ``global_batch_size`` below 1.
    """
    if step < 0 or global_batch_size < 1:
        raise ConfigError(
            f"step is {step} and global_batch_size is {global_batch_size}, expected at least 0 "
            f"and at least 1"
        )
    return step * global_batch_size
