"""Writing shards: under a temporary name, renamed when complete."""

import errno
import os
import shutil
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.config import check_is_path
from blendtitan.errors import CorruptShardError
from blendtitan.files import open_file, path_of
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.atomic_files import (
    flush_and_close,
    partial_path,
    remove_file_partials,
    sync_folder,
    writing,
)
from blendtitan.storage.index_arrays import encode_index
from blendtitan.storage.index_format import CODE_OF_DTYPE
from blendtitan.storage.reader import FileSignature
from blendtitan.storage.record_files import TokenizerRecord, record_path
from blendtitan.storage.record_writer import encode_record
from blendtitan.storage.records import ENDS_SUFFIX, RECORD_SUFFIX

DOCS_SUFFIX = ".docs.parquet"
"""Suffix of the file with the source of each document."""

SOURCE_COLUMNS = ("shard", "document", "input", "row", "byte")
"""What is known of every document, in that file or by its place there."""

SHARD_SUFFIXES = (".idx", RECORD_SUFFIX, ENDS_SUFFIX, DOCS_SUFFIX, ".bin")
"""Suffixes of all files of a shard, in the order in which they are deleted."""

# The kernel copies this much per call; it may copy less, and does so above 2 GiB.
_COPY_BYTES = 1 << 30

# Errors of kernels and file systems that cannot copy between two files.
_CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type that Megatron uses for ids below ``vocab_size``: uint16 if they fit, else int32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<i4")


class ShardWriter:
    """Writes the documents of one shard, in the given order, with one sequence per document.

    ``ShardWriter.create`` starts a shard. The files get their final names only when ``close`` has
    written everything, the ``.bin`` first: once the ``.idx`` exists, the whole shard can be read.
    As a context manager, the writer leaves no files behind after an error.
    """

    def __init__(
        self,
        prefix: Path,
        dtype: np.dtype[Any],
        partial_bin: BinaryIO,
        tokenizer: TokenizerIdentity | None = None,
    ) -> None:
        self.prefix = prefix
        self.dtype = dtype
        self.tokenizer = tokenizer
        self.num_tokens = 0
        # Four bytes per document.
        self._lens = array("i")
        self._bin = partial_bin
        self._docs: BinaryIO | None = None

    @classmethod
    def create(
        cls, prefix: Path, *, dtype: np.dtype[Any], tokenizer: TokenizerIdentity | None = None
    ) -> Self:
        """Start a shard, and create its folder if it is missing.

        Args:
            prefix: Path of the shard without its suffix.
            dtype: Type of the stored tokens, little endian; see ``token_dtype``.
            tokenizer: The tokenizer that made the tokens, to be recorded beside the shard. None:
                unknown, and not recorded.

        Raises:
            OutputError: The folder or the file cannot be written.
        """
        check_is_path("the shard", prefix)
        if dtype not in CODE_OF_DTYPE:
            raise ValueError(f"{prefix}: dtype is {dtype.str}, expected a little-endian integer")
        bin_path = Path(f"{prefix}.bin")
        with writing(bin_path):
            prefix.parent.mkdir(parents=True, exist_ok=True)
            partial = partial_path(bin_path)
            return cls(prefix, dtype, open(partial, "wb", buffering=1 << 20), tokenizer)

    @property
    def num_documents(self) -> int:
        """Number of documents written so far."""
        return len(self._lens)

    def add_document(self, tokens: NDArray[np.integer]) -> None:
        """Append one document, EOD included. Shape of ``tokens``: ``(document_len,)``.

        Raises:
            OverflowError: A token id does not fit the shard's dtype.
            OutputError: The disk is full.
        """
        self.add_documents(tokens, np.array([len(tokens)], np.int32))

    def add_documents(self, tokens: NDArray[np.integer], lens: NDArray[np.int32]) -> None:
        """Append several documents, EODs included.

        Args:
            tokens: Concatenated tokens of the documents. Shape ``(sum(lens),)``.
            lens: Tokens of each document. Shape ``(num_documents,)``.

        Raises:
            OverflowError: A token id does not fit the shard's dtype.
            OutputError: The disk is full.
        """
        where = f"{self.prefix}: document {self.num_documents} or a later one"
        stored = stored_tokens(tokens, self.dtype, where=where)
        with writing(Path(f"{self.prefix}.bin")):
            self._bin.write(stored.data)
        self._add_lens(lens)

    def add_file(self, tokens_path: Path, lens: NDArray[np.int32]) -> None:
        """Append the documents of a file that has the layout of a ``.bin``.

        Args:
            tokens_path: File of tokens of the shard's dtype, without gaps. It is copied, not read.
            lens: Tokens of each document. Shape ``(num_documents,)``.

        Raises:
            CorruptShardError: The size of the file does not match its documents.
        """
        with writing(Path(f"{self.prefix}.bin")):
            found = append_file(tokens_path, self._bin)
        num_tokens = int(lens.sum(dtype=np.int64))
        expected = num_tokens * self.dtype.itemsize
        if found != expected:
            raise CorruptShardError(
                f"{tokens_path}: found {found:,} bytes, expected {expected:,} ({num_tokens:,} "
                f"tokens of {self.dtype.itemsize} bytes). Write the file again."
            )
        self._add_lens(lens)

    def open_docs(self) -> BinaryIO:
        """The file for the sources of the documents, to be filled before ``close``."""
        path = docs_path(self.prefix)
        with writing(path):
            self._docs = partial_path(path).open("wb")
        return self._docs

    def _add_lens(self, lens: NDArray[np.int32]) -> None:
        self._lens.frombytes(lens.astype(np.int32, copy=False).tobytes())
        self.num_tokens += int(lens.sum(dtype=np.int64))

    def close(self) -> None:
        """Write the ``.idx``, flush both files to disk, and give them their final names."""
        lens = np.frombuffer(self._lens, dtype=np.int32)
        record = None
        if self.tokenizer is not None:
            record = TokenizerRecord(self.tokenizer, self.num_documents, self.num_tokens)
        with writing(Path(f"{self.prefix}.bin")):
            flush_and_close(self._bin)
        if self._docs is not None:
            with writing(docs_path(self.prefix)):
                flush_and_close(self._docs)
        _write_partial(
            Path(f"{self.prefix}.idx"),
            lambda file: file.writelines(encode_index(lens, dtype=self.dtype)),
        )
        publish(self.prefix, record, has_docs=self._docs is not None)

    def abort(self) -> None:
        """Delete the unfinished files."""
        # Flushing the rest may fail on a full disk.
        for file in filter(None, (self._bin, self._docs)):
            with suppress(OSError):
                file.close()
        _discard(self.prefix)

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


def write_shard(
    prefix: Path,
    index: Iterable[bytes],
    write_tokens: Callable[[BinaryIO], None],
    record: TokenizerRecord | None = None,
    *,
    write_docs: Callable[[BinaryIO], object] | None = None,
) -> FileSignature:
    """Write the files of a shard under partial names, rename them, and return their signature.

    ``index`` is the content of the ``.idx``; ``write_tokens`` writes that of the ``.bin``, and
    ``write_docs``, if there is one, the sources of the documents. A missing folder is created.
    """
    check_is_path("the shard", prefix)
    bin_path = Path(f"{prefix}.bin")
    with writing(bin_path.parent):
        bin_path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(prefix)
    try:
        # The .idx first: making it checks the inputs, before gigabytes of tokens are copied.
        _write_partial(Path(f"{prefix}.idx"), lambda file: file.writelines(index))
        if write_docs is not None:
            _write_partial(docs_path(prefix), write_docs)
        _write_partial(bin_path, write_tokens)
        return publish(prefix, record, has_docs=write_docs is not None)
    finally:
        _discard(prefix)


def _write_partial(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with writing(path), partial_path(path).open("wb") as file:
        write(file)
        flush_and_close(file)


def _discard(prefix: Path) -> None:
    for suffix in SHARD_SUFFIXES:
        partial_path(Path(f"{prefix}{suffix}")).unlink(missing_ok=True)


def stored_tokens(
    tokens: NDArray[np.integer], dtype: np.dtype[Any], *, where: str
) -> NDArray[np.integer]:
    """Tokens in the dtype of a shard.

    Raises:
        OverflowError: A token id does not fit the dtype; ``where`` is the subject of the message.
    """
    stored = tokens.astype(dtype)
    if not np.array_equal(stored, tokens):
        raise OverflowError(
            f"{where} has token ids from {tokens.min()} to {tokens.max()}, which do not fit "
            f"{dtype.name}"
        )
    return stored


def append_file(source: Path, target: BinaryIO, *, start: int = 0) -> int:
    """Append a file, from byte ``start`` on, to an open file; return the number of bytes.

    The kernel copies the bytes, or shares the blocks if the file system can; otherwise Python
    copies them.
    """
    target.flush()
    with open_file(source) as file:
        # Unbuffered: the kernel copies from where the descriptor stands.
        os.lseek(file.fileno(), start, os.SEEK_SET)
        while num_bytes := _copy_in_kernel(file.fileno(), target.fileno()):
            pass
        if num_bytes is None:
            shutil.copyfileobj(file, target, length=1 << 20)
            target.flush()
        return os.lseek(file.fileno(), 0, os.SEEK_CUR) - start


def _copy_in_kernel(source: int, target: int) -> int | None:
    """Bytes copied from one file to the other; 0 at the end; None: the kernel cannot."""
    # macOS has no such call.
    if not hasattr(os, "copy_file_range"):
        return None
    try:
        return os.copy_file_range(source, target, _COPY_BYTES)
    except OSError as error:
        if error.errno in _CANNOT_COPY:
            return None
        raise


def remove_shard(prefix: Path) -> None:
    """Delete a shard, if it exists: first the ``.idx``, so that no reader sees half of it.

    Raises:
        OutputError: A folder has the name of one of its files. Nothing was deleted.
    """
    _check_no_folders(prefix)
    for suffix in SHARD_SUFFIXES:
        Path(f"{prefix}{suffix}").unlink(missing_ok=True)


def remove_partials(prefix: Path) -> None:
    """Delete partial files of a shard from killed processes."""
    for suffix in SHARD_SUFFIXES:
        remove_file_partials(Path(f"{prefix}{suffix}"))


def _check_no_folders(prefix: Path) -> None:
    for suffix in SHARD_SUFFIXES:
        path = Path(f"{prefix}{suffix}")
        with writing(path):
            if path.is_dir() and not path.is_symlink():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def docs_path(prefix: Path | str) -> Path:
    """Path of the file with the sources of a shard's documents."""
    return path_of(f"{prefix}{DOCS_SUFFIX}")


def publish(
    prefix: Path, record: TokenizerRecord | None = None, *, has_docs: bool = False
) -> FileSignature:
    """Rename the complete partial files of a shard so that no reader sees half of it.

    ``record``, if there is one, is written beside it; an old one is deleted otherwise. The same
    holds for the sources of its documents, whose partial file exists if ``has_docs``.

    Returns the signature of these files, even if another process replaces them meanwhile.

    Raises:
        OutputError: A folder has one of these names. Existing files are unchanged.
    """
    _check_no_folders(prefix)
    path_of_record = record_path(prefix)
    if record is not None:
        _write_partial(path_of_record, lambda file: file.write(encode_record(record)))
    final = [Path(f"{prefix}{suffix}") for suffix in (".bin", ".idx")]
    tokens, index = map(partial_path, final)
    signature = FileSignature.of_files(index.stat(), tokens.stat())
    # An old .idx must never describe the new .bin, nor an old record the new tokens. A shard exists
    # once it has its .idx, so the records are put in place first.
    Path(f"{prefix}.idx").unlink(missing_ok=True)
    Path(f"{prefix}{ENDS_SUFFIX}").unlink(missing_ok=True)
    if has_docs:
        partial_path(docs_path(prefix)).replace(docs_path(prefix))
    else:
        docs_path(prefix).unlink(missing_ok=True)
    if record is None:
        path_of_record.unlink(missing_ok=True)
    else:
        partial_path(path_of_record).replace(path_of_record)
    for path, partial in zip(final, (tokens, index), strict=True):
        partial.replace(path)
    sync_folder(prefix.parent)
    return signature
