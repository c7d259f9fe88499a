"""The samples of a step, as a TOML file and the number of ranks give them."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blendtitan.config import check_at_least
from blendtitan.errors import BlendTitanError, ConfigError
from blendtitan.settings.batches import check_batches


@contextmanager
def errors_of(where: str | Path) -> Iterator[None]:
    """Begin the errors of the block with ``where``."""
    try:
        yield
    except BlendTitanError as error:
        error.args = (f"{where}: {error.args[0]}", *error.args[1:])
        raise


def global_batch_size_of(
    path: Path, values: Mapping[str, Any], ranks: int | None, trained: int | None = None
) -> int:
    """Samples of a step of all ranks together, checked as the trainer checks it.

    ``trained`` is the number in the run's checkpoint, if it has one.
    """
    set_by = "training.global_batch_size"
    size, local = values[set_by], values["training.local_batch_size"]
    # The number of ranks is a multiple of this, for any number of processes.
    degrees = ("data_parallel_replicate_degree", "data_parallel_shard_degree")
    known = math.prod(max(1, values[f"parallelism.{degree}"]) for degree in degrees)
    if ranks is not None:
        check_at_least("--ranks", ranks, 1)
        if ranks % known:
            raise ConfigError(
                f"{path}: --ranks is {ranks}, expected a multiple of {known}: the product of the "
                f"data-parallel degrees in [parallelism]"
            )
    with errors_of(path):
        check_batches(
            size, local_batch_size=local, ranks=ranks or known, are_all_ranks=ranks is not None
        )
    if size > 0:
        return size
    if ranks is None and trained is not None:
        return trained
    if ranks is None:
        raise ConfigError(
            f"{path}: {set_by} is {size}, so a step has one micro batch of every rank. Give the "
            f"number of data-parallel ranks with --ranks, or set {set_by}."
        )
    return local * ranks
