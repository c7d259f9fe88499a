"""Writing shards: beside the final name, renamed when complete."""

import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.storage.index_format import CODE_OF_DTYPE, encode_index

# Process ids repeat on other machines, which may write to the same folder.
_RUN = uuid.uuid4().hex[:8]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Smallest type that Megatron uses for ids below ``vocab_size``: uint16, else int32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<i4")


class ShardWriter:
    """Writes one shard, one sequence per document, in the order given.

    The files appear under their names only when ``close`` has written everything, the ``.bin``
    first: whoever sees the ``.idx`` can read the whole shard. Used as a context manager, an
    error inside leaves nothing behind.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[Any], partial_bin: BinaryIO) -> None:
        self.prefix = prefix
        self.dtype = dtype
        self.num_tokens = 0
        self._lens: list[int] = []
        self._bin = partial_bin

    @classmethod
    def create(cls, prefix: Path, *, dtype: np.dtype[Any]) -> Self:
        """Start a shard; its folder is made if it is missing."""
        if dtype not in CODE_OF_DTYPE:
            raise ValueError(f"{prefix}: dtype is {dtype.str}, expected a little-endian integer")
        prefix.parent.mkdir(parents=True, exist_ok=True)
        return cls(prefix, dtype, open(_partial(Path(f"{prefix}.bin")), "wb", buffering=1 << 20))

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return len(self._lens)

    def add_document(self, tokens: NDArray[np.integer]) -> None:
        """Append one document, EOD included. Shape of ``tokens``: ``(document_len,)``.

        Raises:
            OverflowError: A token id does not fit the shard's dtype.
        """
        stored = tokens.astype(self.dtype)
        if not np.array_equal(stored, tokens):
            raise OverflowError(
                f"{self.prefix}: document {self.num_documents} has token ids from {tokens.min()} "
                f"to {tokens.max()}, which do not fit {self.dtype.name}"
            )
        self._bin.write(stored.tobytes())
        self._lens.append(len(stored))
        self.num_tokens += len(stored)

    def close(self) -> None:
        """Write the ``.idx``, flush both files to disk and give them their names."""
        _flush_and_close(self._bin)
        lens = np.array(self._lens, dtype=np.int32)
        document_index = np.arange(len(lens) + 1, dtype=np.int64)
        partial_bin, partial_idx = Path(self._bin.name), _partial(Path(f"{self.prefix}.idx"))
        with partial_idx.open("wb") as idx:
            idx.writelines(encode_index(lens, document_index, dtype=self.dtype))
            _flush_and_close(idx)
        # An old .idx must not describe the new .bin, not even for a moment.
        Path(f"{self.prefix}.idx").unlink(missing_ok=True)
        partial_bin.replace(f"{self.prefix}.bin")
        partial_idx.replace(f"{self.prefix}.idx")
        sync_folder(self.prefix.parent)

    def abort(self) -> None:
        """Close and delete what was written so far."""
        self._bin.close()
        for suffix in (".bin", ".idx"):
            _partial(Path(f"{self.prefix}{suffix}")).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new one, never a part."""
    partial = _partial(path)
    with partial.open("wb") as file:
        file.write(content)
        _flush_and_close(file)
    partial.replace(path)
    sync_folder(path.parent)


def _partial(path: Path) -> Path:
    return Path(f"{path}.partial-{_RUN}-{os.getpid()}")


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _flush_and_close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
