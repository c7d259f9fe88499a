"""Shards of other formats into Megatron's, without tokenising again.

A new format is a module in ``formats`` with a class that is a ``Source``, and an entry in
``_FORMATS``. Memory does not grow with the shards.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blendtitan.errors import ConfigError
from blendtitan.prepare.formats.multimodal import MultimodalShard
from blendtitan.prepare.formats.source import Source
from blendtitan.prepare.formats.tntidx import OldShard
from blendtitan.storage.atomic_files import flush_and_close, partial_path, writing
from blendtitan.storage.list_forms import named_shards
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.records import SHARD_SUFFIXES
from blendtitan.storage.writer import encode_index_blocks, publish, remove_partials

_FORMATS: Sequence[Callable[[Path], Source | None]] = (OldShard.open, MultimodalShard.open)
"""Each opens the shard of a prefix, or says None where it is in another format."""


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
    """Write each shard in Megatron's format below ``output``; yields as they are done.

    Every shard appears when it is complete. Its ``.idx`` is checked entry by entry before.

    Args:
        inputs: Prefixes, folders of shards and file lists.
        output: Shards of a folder keep their place in it, others only their name.
        overwrite: Whether shards that are there already are replaced.

    Raises:
        ConfigError: An input cannot be used, or would be written over.
        ShardError: A shard is damaged. Those written before stay.
    """
    planned = _planned(inputs, output)
    for source, prefix in planned.items():
        _check_free(source, prefix, overwrite=overwrite)
    for source, prefix in planned.items():
        yield convert_shard(source, prefix)


def convert_shard(source: Path, prefix: Path) -> ConvertedShard:
    """Convert one shard: both files are written beside their names, then renamed.

    Raises:
        ConfigError: The shard is in Megatron's format already.
        ShardError: It is damaged.
        OutputError: The disk is full, or does not let the shard be written.
    """
    shard = _opened(source)
    bin_path, idx_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    with writing(bin_path.parent):
        bin_path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(prefix)
    partial_bin, partial_idx = partial_path(bin_path), partial_path(idx_path)
    try:
        with writing(idx_path), partial_idx.open("wb") as idx:
            idx.writelines(
                encode_index_blocks(shard.header, shard.lens_blocks, shard.document_blocks())
            )
            flush_and_close(idx)
        with writing(bin_path), partial_bin.open("wb") as tokens:
            shard.write_tokens(tokens)
            flush_and_close(tokens)
        publish(prefix, partial_bin, partial_idx)
    finally:
        partial_bin.unlink(missing_ok=True)
        partial_idx.unlink(missing_ok=True)
    index = ShardIndex.open(prefix)
    return ConvertedShard(
        source=source,
        prefix=prefix,
        description=shard.description,
        num_documents=index.num_documents,
        num_tokens=index.num_tokens,
    )


def _opened(source: Path) -> Source:
    for open_shard in _FORMATS:
        shard = open_shard(source)
        if shard is not None:
            return shard
    ShardIndex.open(source)
    raise ConfigError(
        f"{source}: is in Megatron's format already, expected TNTIDX or a multimodal shard. Leave "
        f"it out, and use it as it is."
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
