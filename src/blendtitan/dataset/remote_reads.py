"""Windows of shards in object storage, read all at once instead of one after the other."""

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from blendtitan.dataset.rows import Rows
from blendtitan.storage.remote_file import Range, RemoteFile, fetch_ahead

if TYPE_CHECKING:
    from blendtitan.dataset.blended import Plan


def read_ahead(rows: Rows, plan: "Plan", start: int, out: NDArray[Any]) -> None:
    """Read the windows that this thread is about to read: samples of a plan, from ``start`` on.

    A window that is not contiguous is read when its turn comes.

    Raises:
        CorruptShardError: A shard is another one than when the catalog was built.

    Args:
        rows: The rows of the split.
        plan: Places of samples.
        start: The first sample.
        out: Where they will be read to. Shape ``(samples, L + 1)``.
    """
    stop, ranges = start + len(out), list[Range]()
    for shard, at in zip(plan.shards[start:stop], plan.at_bytes[start:stop], strict=True):
        if at < 0 or "://" not in rows.catalog.prefixes[shard]:
            continue
        file = rows.open_bin(shard)
        assert isinstance(file, RemoteFile)
        ranges += file.ranges(int(at), out.shape[1] * rows.catalog.dtype(shard).itemsize)
    fetch_ahead(ranges)
