"""``blendtitan convert``: shards of other formats into Megatron's, without tokenising again.

A format is a class like ``MultimodalShard``, with an entry in ``_FORMATS``. Memory does not grow
with the shards.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError
from blendtitan.files import open_file
from blendtitan.prepare.merge import write_shard
from blendtitan.prepare.tntidx import OldShard
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.index_format import HEADER, MAGIC, IndexHeader, decode_header
from blendtitan.storage.list_forms import named_shards
from blendtitan.storage.reader import OpenFile, ShardIndex, size_of
from blendtitan.storage.records import SHARD_SUFFIXES
from blendtitan.storage.writer import encode_index_blocks

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class MultimodalShard:
    """A shard in Megatron's format whose ``.idx`` ends with one mode byte per sequence.

    The sequences must all be text. The modes are dropped.
    """

    prefix: Path
    arrays: IndexArrays
    description: str = "Megatron's multimodal format, modes left out"

    @classmethod
    def open(cls, prefix: Path) -> Self | None:
        """The shard at a prefix, checked. None: it has another format."""
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
        """Append the tokens, which stay as they are, to a ``.bin``."""
        with open_file(f"{self.prefix}.bin") as tokens:
            shutil.copyfileobj(tokens, out, _BLOCK)

    def _check(self) -> None:
        self.arrays.check_documents()
        found = size_of(f"{self.prefix}.bin")
        expected = self.arrays.check_lens() * self.header.dtype.itemsize
        if found != expected:
            raise CorruptShardError(
                f"{self.prefix}.bin: found {found:,} bytes, expected {expected:,}, by the lengths "
                f"of the .idx. Copy both files again."
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


_FORMATS = (OldShard.open, MultimodalShard.open)
"""Each opens the shard of a prefix, or returns None if it has another format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedShard:
    """A shard, and what it became."""

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
        _check_free(source, prefix, overwrite=overwrite)
    for source, prefix in planned.items():
        yield convert_shard(source, prefix)


def convert_shard(source: Path, prefix: Path) -> ConvertedShard:
    """Convert one shard: both files are written beside their names, then renamed."""
    shard = next(filter(None, (open_shard(source) for open_shard in _FORMATS)), None)
    if shard is None:
        ShardIndex.open(source)
        raise ConfigError(
            f"{source}: is in Megatron's format already, expected TNTIDX or a multimodal shard. "
            f"Leave it out, and use it as it is."
        )
    blocks = encode_index_blocks(shard.header, shard.lens_blocks, shard.document_blocks())
    write_shard(prefix, blocks, shard.write_tokens)
    index = ShardIndex.open(prefix)
    return ConvertedShard(
        source=source,
        prefix=prefix,
        description=shard.description,
        num_documents=index.num_documents,
        num_tokens=index.num_tokens,
    )


def _planned(inputs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The new prefix of each shard."""
    planned: dict[Path, Path] = {}
    for path in inputs:
        for source, _ in named_shards([path]):
            is_in_folder = path.is_dir() and source != path
            name = source.relative_to(path) if is_in_folder else Path(source.name)
            planned[source] = output / name
    taken: dict[Path, Path] = {}
    for source, prefix in planned.items():
        first = taken.setdefault(prefix, source)
        if first != source:
            raise ConfigError(
                f"{source} and {first} would both become {prefix}. Convert them into different "
                f"folders."
            )
    return planned


def _check_free(source: Path, prefix: Path, *, overwrite: bool) -> None:
    for suffix in reversed(SHARD_SUFFIXES):
        new, old = Path(f"{prefix}{suffix}"), Path(f"{source}{suffix}")
        if not os.path.lexists(new):
            continue
        if old.exists() and new.exists() and new.samefile(old):
            raise ConfigError(
                f"{new}: is an input and would be overwritten. Choose another folder."
            )
        if not overwrite:
            raise ConfigError(
                f"{new}: exists already. Choose another folder, or give --overwrite to replace it."
            )
