"""Megatron's multimodal shards whose sequences are all text: the modes are left out."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import CorruptShardError
from blendtitan.files import open_file
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.index_format import HEADER, MAGIC, IndexHeader, decode_header
from blendtitan.storage.reader import OpenFile, size_of

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class MultimodalShard:
    """A shard in Megatron's format whose ``.idx`` ends with one mode byte per sequence."""

    prefix: Path
    arrays: IndexArrays
    description: str = "Megatron's multimodal format, modes left out"

    @classmethod
    def open(cls, prefix: Path) -> Self | None:
        """The shard at a prefix; None: it is in another format.

        Raises:
            ShardError: It cannot be read, contradicts itself, or holds more than text.
        """
        file = OpenFile.open(f"{prefix}.idx")
        head = file.read(min(HEADER.size, file.num_bytes), at=0)
        if not head.startswith(MAGIC):
            return None
        header = decode_header(head, file_bytes=file.num_bytes, path=file.path, may_have_modes=True)
        if file.num_bytes == header.file_bytes:
            return None
        shard = cls(prefix, IndexArrays(header, file))
        shard._check()
        return shard

    @property
    def header(self) -> IndexHeader:
        """The header, which is the same without modes."""
        return self.arrays.header

    def lens_blocks(self) -> Iterator[NDArray[np.int32]]:
        """Tokens of each sequence."""
        return self.arrays.lens_blocks()

    def document_blocks(self) -> Iterator[NDArray[np.int64]]:
        """The document index."""
        return self.arrays.document_blocks()

    def write_tokens(self, out: BinaryIO) -> None:
        """Append the tokens, which stay as they are."""
        with open_file(f"{self.prefix}.bin") as tokens:
            shutil.copyfileobj(tokens, out, _BLOCK)

    def _check(self) -> None:
        self.arrays.check_documents()
        found, expected = size_of(f"{self.prefix}.bin"), self.arrays.check_lens()
        if found != expected * self.header.dtype.itemsize:
            raise CorruptShardError(
                f"{self.prefix}.bin: found {found:,} bytes, expected "
                f"{expected * self.header.dtype.itemsize:,}, by the lengths of the .idx. Copy both "
                f"files again."
            )
        file, at = self.arrays.file, self.header.file_bytes
        for start in range(at, file.num_bytes, _BLOCK):
            modes = np.frombuffer(file.read(min(_BLOCK, file.num_bytes - start), at=start), np.int8)
            if modes.any():
                place = int(np.flatnonzero(modes)[0])
                raise CorruptShardError(
                    f"{file.path}: sequence {start - at + place:,} has mode {modes[place]}, "
                    f"expected 0 (text) for all. The shard holds more than text, which cannot be "
                    f"trained on here."
                )
