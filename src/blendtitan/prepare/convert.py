"""``blendtitan convert``: shards of other formats into Megatron's, without tokenising again.

Two formats are known. The ``.idx`` of Megatron's multimodal shards ends with one mode byte per
sequence; these bytes are dropped from a shard that holds only text. TNTIDX is the older format of
fairseq, and of gpt-neox's and Megatron's ``lazy`` and ``cached``. Its ``.bin`` holds tokens without
gaps, and its ``.idx`` is, in little-endian integers of 64 bits after the first eight bytes:

    ``TNTIDX`` and two zero bytes
    version, 1
    dtype code, bytes of a token
    number of items N, number of sizes S
    entries of the document index D; not in fairseq's files
    N + 1   first size of each item, then S
    N + 1   start of each item in the ``.bin``, in tokens, then the number of tokens
    S       sizes: the length of each item, because items have one dimension
    D       document index: first item of each document, then N; not in fairseq's files

fairseq stores every id plus 1, and subtracts it again when it reads ("for Lua compatibility"); its
items are documents. gpt-neox and Megatron store ids unchanged.

Source: ``indexed_dataset.py`` of fairseq and of gpt-neox.
"""

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError
from blendtitan.files import open_file
from blendtitan.storage.failed_reads import size_of
from blendtitan.storage.index_arrays import IndexArrays, encode_index
from blendtitan.storage.index_format import DTYPE_CODES, MAGIC, OLD_MAGIC
from blendtitan.storage.list_forms import named_shards
from blendtitan.storage.reader import OpenFile, ShardIndex
from blendtitan.storage.writer import SHARD_SUFFIXES, write_shard

_OLD_HEADER = struct.Struct("<8s5Q")
_BLOCK = 1 << 20
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class _Source:
    """A shard in another format, with every entry checked."""

    prefix: Path
    description: str
    dtype: np.dtype[Any]
    lens: NDArray[np.int32]
    documents: NDArray[np.int64]
    is_fairseq: bool = False

    def write_tokens(self, out: BinaryIO) -> None:
        """Append the tokens to a ``.bin``, as ids that start at 0."""
        with open_file(f"{self.prefix}.bin") as file:
            if not self.is_fairseq:
                shutil.copyfileobj(file, out, _BLOCK)
                return
            while block := file.read(_BLOCK):
                tokens = np.frombuffer(block, self.dtype)
                if tokens.min() < 1:
                    raise CorruptShardError(
                        f"{self.prefix}.bin: found the stored id {tokens.min()}, expected 1 or "
                        f"more. fairseq stores every id plus 1, and this file has no document "
                        f"index, like fairseq's, so another program wrote it."
                    )
                out.write((tokens - self.dtype.type(1)).data)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedShard:
    """A shard and its conversion."""

    source: Path
    prefix: Path
    description: str
    num_documents: int
    num_tokens: int


def convert(
    inputs: Sequence[Path], output: Path, *, overwrite: bool = False
) -> Iterator[ConvertedShard]:
    """Write each shard in Megatron's format below ``output``; yields each when it is finished.

    Every shard appears when it is complete. Every entry of its ``.idx`` is checked before.

    Args:
        inputs: Prefixes, folders of shards and file lists.
        output: Shards of a folder keep their place in it, others only their name.
        overwrite: Whether existing shards are replaced.

    Raises:
        ConfigError: An input cannot be used, or would be overwritten.
        ShardError: A shard is damaged. Shards written before stay.
    """
    planned = _planned(inputs, output)
    for source, prefix in planned.items():
        files = [Path(f"{source}{suffix}") for suffix in SHARD_SUFFIXES]
        check_free(prefix, files, overwrite=overwrite)
    for source, prefix in planned.items():
        yield convert_shard(source, prefix)


def convert_shard(source: Path, prefix: Path) -> ConvertedShard:
    """Convert one shard: both files are written beside their names, then renamed."""
    found = _open_source(source)
    write_shard(
        prefix, encode_index(found.lens, found.documents, dtype=found.dtype), found.write_tokens
    )
    index = ShardIndex.open(prefix)
    return ConvertedShard(
        source=source,
        prefix=prefix,
        description=found.description,
        num_documents=index.num_documents,
        num_tokens=index.num_tokens,
    )


def _open_source(prefix: Path) -> _Source:
    file = OpenFile.open(f"{prefix}.idx")
    head = file.read(min(_OLD_HEADER.size + 8, file.num_bytes), at=0)
    if head.startswith(OLD_MAGIC):
        return _old_shard(prefix, file, head)
    if head.startswith(MAGIC):
        arrays = IndexArrays.of_file(file, may_have_modes=True)
        if file.num_bytes != arrays.header.file_bytes:
            return _multimodal_shard(prefix, file, arrays)
    ShardIndex.open(prefix)
    raise ConfigError(
        f"{prefix}: is already in Megatron's format, expected TNTIDX or a multimodal shard. Use it "
        f"directly, and remove it from the inputs."
    )


def _multimodal_shard(prefix: Path, file: OpenFile, arrays: IndexArrays) -> _Source:
    arrays.check_documents()
    num_bytes, found = arrays.check_lens() * arrays.dtype.itemsize, size_of(f"{prefix}.bin")
    if found != num_bytes:
        raise CorruptShardError(
            f"{prefix}.bin: found {found:,} bytes, expected {num_bytes:,}, by the lengths of the "
            f".idx. Copy both files again."
        )
    at = arrays.header.file_bytes
    modes = np.frombuffer(file.read(file.num_bytes - at, at=at), np.int8)
    if modes.any():
        place = int(np.flatnonzero(modes)[0])
        raise CorruptShardError(
            f"{file.path}: sequence {place:,} has mode {modes[place]}, expected 0 (text) for all. "
            f"The shard holds more than text, so BlendTitan cannot train on it."
        )
    description = "Megatron's multimodal format, modes dropped"
    return _Source(prefix, description, arrays.dtype, arrays.lens, arrays.documents)


def _old_shard(prefix: Path, file: OpenFile, head: bytes) -> _Source:
    """A shard in the TNTIDX format. The sizes are checked before anything else is read."""
    if len(head) < _OLD_HEADER.size:
        raise CorruptShardError.of_index(
            file.path, f"found {file.num_bytes} bytes", f"a header of {_OLD_HEADER.size}"
        )
    _, version, code, token_bytes, num_items, num_sizes = _OLD_HEADER.unpack_from(head)
    dtype = DTYPE_CODES.get(code)
    if version != 1 or dtype is None or dtype.kind not in "iu" or token_bytes != dtype.itemsize:
        found = f"version {version}, dtype code {code} of {token_bytes} bytes"
        raise CorruptShardError.of_index(
            file.path, f"found {found}", "version 1 and an integer type, code 1 to 5 or 8"
        )
    least = _OLD_HEADER.size + 8 * (2 * (num_items + 1) + num_sizes)
    is_fairseq, at = file.num_bytes == least, _OLD_HEADER.size
    if not is_fairseq:
        at += 8
        num_entries = int.from_bytes(head[_OLD_HEADER.size :], "little") if len(head) == at else 0
        if num_entries < 1 or file.num_bytes != least + 8 + 8 * num_entries:
            raise CorruptShardError.of_index(
                file.path,
                f"found {file.num_bytes:,} bytes",
                f"{least:,} without a document index or {least + 8 + 8 * num_entries:,} with one, "
                f"by its header",
            )
    numbers = np.empty((file.num_bytes - at) // 8, np.dtype("<i8"))
    file.read_into(numbers, at=at)
    ends = np.cumsum([num_items + 1, num_items + 1, num_sizes])
    first_sizes, starts, sizes, documents = np.split(numbers, ends)
    if not np.array_equal(first_sizes, np.arange(num_items + 1)) or num_sizes != num_items:
        raise CorruptShardError.of_index(
            file.path, "found items of several dimensions", "texts, which have one"
        )
    _check_items(file, starts, sizes)
    found, expected = size_of(f"{prefix}.bin"), int(sizes.sum()) * dtype.itemsize
    if found != expected or not num_items:
        raise CorruptShardError(
            f"{prefix}.bin: found {found:,} bytes, expected {expected:,}, by the sizes of "
            f"{num_items:,} items in the .idx. Copy both files again."
        )
    if is_fairseq:
        documents = np.arange(num_items + 1)
    _check_documents(file, documents, num_items)
    description = "TNTIDX of fairseq, ids less 1" if is_fairseq else "TNTIDX"
    return _Source(prefix, description, dtype, sizes.astype(np.int32), documents, is_fairseq)


def _check_items(file: OpenFile, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
    """Check that every item starts at the sum of the sizes before it."""
    if len(sizes) and (sizes.min() < 0 or sizes.max() > _INT32_MAX):
        found = f"items of {sizes.min()} to {sizes.max()} tokens"
        raise CorruptShardError.of_index(file.path, f"found {found}", f"0 to {_INT32_MAX:,}")
    expected = np.append(0, np.cumsum(sizes))
    wrong = np.flatnonzero(starts != expected)
    if len(wrong):
        at = int(wrong[0])
        if at == len(sizes):
            raise CorruptShardError.of_index(
                file.path, f"the last item ends at token {starts[at]:,}", f"{expected[at]:,}"
            )
        raise CorruptShardError.of_index(
            file.path,
            f"item {at} starts at token {starts[at]:,}",
            f"{expected[at]:,}, where the sizes before it end",
        )


def _check_documents(file: OpenFile, documents: NDArray[np.int64], num_items: int) -> None:
    if documents[0] != 0 or (documents[1:] < documents[:-1]).any():
        raise CorruptShardError.of_index(
            file.path, "found a decreasing document index", "an index that grows from 0"
        )
    if documents[-1] != num_items:
        raise CorruptShardError(
            f"{file.path}: the document index ends at item {documents[-1]:,}, expected "
            f"{num_items:,}. The shard was merged by a program that lost part of the index: "
            f"convert the "
            f"original shards, and join them with blendtitan merge."
        )


def _planned(inputs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The new prefix of each shard."""
    planned: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path in inputs:
        for source, _ in named_shards([path]):
            is_in_folder = path.is_dir() and source != path
            name = source.relative_to(path) if is_in_folder else Path(source.name)
            planned[source] = output / name
            first = taken.setdefault(planned[source], source)
            if first != source:
                raise ConfigError(
                    f"{source} and {first} would both become {planned[source]}. Convert them into "
                    f"different folders."
                )
    return planned


def check_free(
    prefix: Path, inputs: Sequence[Path], *, overwrite: bool, difference: str = ""
) -> None:
    """Check that a new shard replaces no file or, with ``overwrite``, none of its inputs.

    ``difference`` tells in the error how an existing file differs from the new one.
    """
    for suffix in reversed(SHARD_SUFFIXES):
        path = Path(f"{prefix}{suffix}")
        if not os.path.lexists(path):
            continue
        if path.exists() and any(each.exists() and path.samefile(each) for each in inputs):
            raise ConfigError(
                f"{path}: is an input and would be overwritten. Choose another folder."
            )
        if not overwrite:
            raise ConfigError(
                f"{path}: exists already{difference}. Choose another folder, or give --overwrite "
                f"to replace it."
            )
