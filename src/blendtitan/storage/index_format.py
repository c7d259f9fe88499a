"""The layout of an ``.idx`` file: constants, dtype codes and the header.

    offset  size  field
    0       9     magic, ``MMIDIDX`` and two zero bytes
    9       8     version, uint64 = 1
    17      1     dtype code of the tokens
    18      8     number of sequences S, uint64
    26      8     number of documents + 1, uint64 = D + 1
    34      4 S   sequence lengths in tokens, int32
    ...     8 S   byte offset of each sequence in the ``.bin``, int64
    ...     8 D+8 document index: first sequence of each document, then S, int64

Everything is little endian. Source: Megatron-LM,
``megatron/core/datasets/indexed_dataset.py``.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1

OLD_MAGIC = b"TNTIDX\x00\x00"
"""First bytes of the older format of fairseq and gpt-neox."""

HEADER = struct.Struct("<9sQBQQ")

DTYPE_CODES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
CODE_OF_DTYPE = {dtype: code for code, dtype in DTYPE_CODES.items()}


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The fixed fields of an ``.idx`` file, and the byte offsets of its three arrays."""

    dtype: np.dtype[Any]
    num_sequences: int
    num_documents: int

    @property
    def pointers_at(self) -> int:
        """Byte offset of the sequence pointers."""
        return HEADER.size + 4 * self.num_sequences

    @property
    def documents_at(self) -> int:
        """Byte offset of the document index."""
        return HEADER.size + 12 * self.num_sequences

    @property
    def file_bytes(self) -> int:
        """Size of a complete ``.idx`` file with this header."""
        return HEADER.size + 12 * self.num_sequences + 8 * (self.num_documents + 1)


def decode_header(
    header: bytes, *, file_bytes: int, path: str, may_have_modes: bool = False
) -> IndexHeader:
    """Decode and check the first 34 bytes of an ``.idx`` file.

    Args:
        header: The first bytes of the file, ``HEADER.size`` of them unless it is shorter.
        file_bytes: Size of the whole file.
        path: Named in errors.
        may_have_modes: Whether the modes of a multimodal shard may follow, one byte per sequence.

    Raises:
        CorruptShardError: A field has a value that the format does not allow, or the file is
            not as long as its header says.
    """
    if len(header) == HEADER.size:
        magic, version, code, num_sequences, num_documents_1 = HEADER.unpack(header)
        dtype = DTYPE_CODES.get(code)
        if (
            dtype
            and dtype.kind in "iu"
            and num_documents_1
            and (magic, version) == (MAGIC, VERSION)
        ):
            decoded = IndexHeader(dtype, num_sequences, num_documents_1 - 1)
            has_modes = may_have_modes and file_bytes == decoded.file_bytes + num_sequences
            if has_modes or file_bytes == decoded.file_bytes:
                return decoded
    from blendtitan.storage.shard_faults import header_fault

    raise header_fault(header, file_bytes=file_bytes, path=path)
