import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendtitan.shards.document_lengths import DocumentLengths, document_lens
from blendtitan.storage.reader import ShardIndex
from tests.conftest import WriteShard

LENS = st.lists(st.one_of(st.integers(0, 20), st.integers(131_070, 131_075)), min_size=1)


@given(parts=st.lists(LENS, min_size=1, max_size=3), percent=st.integers(0, 100))
def test_quantiles_are_those_of_the_sorted_lengths(parts: list[list[int]], percent: int) -> None:
    """Exact for short and long documents, in any number of shards."""
    counted = DocumentLengths()
    for part in parts:
        shard = DocumentLengths()
        shard.add(np.array(part, np.int64))
        counted.update(shard)

    lens = sorted(length for part in parts for length in part)
    rank = max(1, -(-percent * len(lens) // 100))
    assert counted.num_documents == len(lens)
    assert counted.quantile(percent / 100) == lens[rank - 1]


def test_all_documents_of_a_shard_are_counted(write_shard: WriteShard) -> None:
    index = ShardIndex.open(write_shard("web", [[1] * length for length in (3, 1, 4, 1, 5)]))
    counted = DocumentLengths()
    counted.add(document_lens(index))

    assert [counted.quantile(k / 5) for k in range(1, 6)] == [1, 1, 3, 4, 5]
