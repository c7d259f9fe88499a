"""Where the documents of a shard start: many at a time."""

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.reader import ShardIndex, grows


def document_starts(index: ShardIndex, first: int, last: int) -> NDArray[np.int64]:
    """Offsets in the ``.bin`` of documents ``first`` to ``last``, in tokens.

    Shape ``(last - first + 1,)``. ``last`` may be ``num_documents``.

    Raises:
        CorruptShardError: They are outside the shard, or in the wrong order.
    """
    header, token_bytes = index.header, index.dtype.itemsize
    sequences = index.entries(header.documents_at, first, last + 1)
    if not grows(sequences, header.num_sequences):
        raise index.corrupt(
            f"documents {first} to {last} start at sequences that go backwards",
            f"growing numbers up to {header.num_sequences}",
        )
    low, high = int(sequences[0]), int(sequences[-1])
    pointers = index.entries(header.pointers_at, low, min(high + 1, header.num_sequences))
    if (pointers % token_bytes).any():
        raise index.corrupt(
            f"a sequence of documents {first} to {last} starts at an odd byte",
            f"multiples of {token_bytes}",
        )
    starts = np.append(pointers // token_bytes, index.stop)[sequences - low]
    if not grows(starts, index.stop):
        raise index.corrupt(
            f"documents {first} to {last} start at offsets that go backwards",
            f"growing offsets up to {index.stop}",
        )
    return starts
