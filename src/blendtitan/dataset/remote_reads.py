"""Windows of shards in object storage, read all at once instead of one after the other."""

from functools import partial
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
        prefix = rows.catalog.prefixes[shard]
        if "://" not in prefix:
            continue
        token_bytes = rows.catalog.dtype(shard).itemsize
        expected = int(rows.catalog.token_cuts[shard, 3]) * token_bytes
        file = rows.files.open(f"{prefix}.bin", partial(int, expected))
        assert isinstance(file, RemoteFile)
        file.check_version(int(rows.catalog.bin_versions[shard]))
        if at >= 0:
            ranges.append(Range(file, int(at), out.shape[1] * token_bytes))
    fetch_ahead(ranges)
