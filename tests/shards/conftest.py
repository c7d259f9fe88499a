from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blendtitan.storage.writer import encode_index
from tests.conftest import WriteShard

WriteUncounted = Callable[..., Path]


@pytest.fixture
def write_uncounted(write_shard: WriteShard) -> WriteUncounted:
    """Write a shard whose lengths do not count the last token of each document."""

    def write(name: str, documents: list[list[int]], dtype: str = "<u2") -> Path:
        prefix = write_shard(name, documents, dtype)
        lens = np.array([len(document) - 1 for document in documents], np.int32)
        Path(f"{prefix}.idx").write_bytes(b"".join(encode_index(lens, dtype=np.dtype(dtype))))
        return prefix

    return write
