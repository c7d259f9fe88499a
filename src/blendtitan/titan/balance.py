"""Balanced steps of a TorchTitan run. Rank 0 reads the lengths of all documents for all ranks."""

import numpy as np

from blendtitan.balance import balance_steps, balanceable
from blendtitan.batch_schedule import BatchSchedule
from blendtitan.dataset.attention_cost import DocumentLens
from blendtitan.dataset.rows import Rows
from blendtitan.loader import DataLoader
from blendtitan.placed_loader import is_first_rank
from blendtitan.titan.shared_catalog import from_first_rank
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


def balance(loader: DataLoader, *, global_batch_size: int, schedule: BatchSchedule = ()) -> None:
    """Balance the steps of a loader from its position on. A collective operation.

    Args:
        loader: At the start of a step.
        global_batch_size: Samples of that step.
        schedule: The planned sizes of later steps; may include earlier ones.

    Raises:
        ConfigError: The loader cannot be balanced.
        ShardError: An ``.idx`` is missing or damaged.
    """
    lens = shared_lens(loader)
    stride, at = loader.course.stride, loader.consumed_samples
    sizes = [(each.consumed_samples, each.global_batch_size // stride) for each in schedule]
    later = [size for size in sizes if size[0] > at]
    balance_steps(loader, batches_per_step=global_batch_size // stride, later=later, lens=lens)


def shared_lens(loader: DataLoader) -> DocumentLens:
    """The lengths of all documents of a split, read by rank 0. A collective operation.

    Raises:
        ConfigError: The loader cannot be balanced.
        ShardError: An ``.idx`` is missing or damaged.
    """
    lens = _from_rank_0(balanceable(loader.dataset).rows)
    if is_first_rank():
        logger.info(
            "Steps are balanced by the lengths of %s documents, which take %s MB on each rank.",
            *(f"{len(lens.lens) - 1:,}", f"{lens.num_bytes / 1e6:,.1f}"),
        )
    return lens


def _from_rank_0(rows: Rows) -> DocumentLens:
    def read() -> bytes:
        lens = DocumentLens.read(rows).lens
        return lens.tobytes() + lens.dtype.char.encode()

    data = from_first_rank(read)
    dtype = np.dtype(data[-1:].decode())
    lens = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
    return DocumentLens.of_lens(lens, rows.catalog, rows.split)
