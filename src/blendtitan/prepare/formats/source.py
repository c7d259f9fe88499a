"""What a format offers to be converted: the arrays of an ``.idx``, and the tokens."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.index_format import IndexHeader


class Source(Protocol):
    """A shard in another format, checked when it was opened. Arrays come in blocks."""

    @property
    def header(self) -> IndexHeader:
        """The header of the converted ``.idx``."""
        ...

    @property
    def description(self) -> str:
        """The format, and what is changed, in a few words."""
        ...

    def lens_blocks(self) -> Iterator[NDArray[np.int32]]:
        """Tokens of each sequence."""
        ...

    def document_blocks(self) -> Iterator[NDArray[np.int64]]:
        """The document index."""
        ...

    def write_tokens(self, out: BinaryIO) -> None:
        """Append the tokens to an opened ``.bin``.

        Raises:
            ShardError: They cannot be read, or are not what the index says.
        """
        ...
