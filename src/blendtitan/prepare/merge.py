"""Many shards into few, streaming: tokens are copied by the kernel, the ``.idx`` in blocks."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError
from blendtitan.files import open_file
from blendtitan.prepare.merge_plan import (
    MergedShard,
    SourceShard,
    check_tokenizers,
    plan_merge,
    read_sources,
)
from blendtitan.storage.atomic_files import flush_and_close, partial_path, writing
from blendtitan.storage.ends import DocumentEnds, read_ends
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.list_forms import find_shards
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.record_files import encode_record, joined_ends, write_ends
from blendtitan.storage.records import RECORD_SUFFIX
from blendtitan.storage.writer import append_file, encode_index_blocks, publish, remove_partials

_COMPARED_BYTES = 1 << 20


def merge(
    inputs: Sequence[Path], output: Path, *, target_tokens: float, overwrite: bool = False
) -> list[MergedShard]:
    """Join neighbouring shards of each corpus into shards of up to ``target_tokens`` tokens.

    The inputs stay. Every output shard appears when it is complete. An interrupted call can be
    repeated: shards that already hold, byte for byte, what would be written stay as they are.

    Args:
        inputs: Prefixes, folders of shards and file lists, as ``named_shards`` takes them.
        output: Folder of the new shards: ``output/CORPUS/00000``, ``00001``, and so on.
        target_tokens: A shard that has more than this by itself becomes an output of its own.
        overwrite: Write every shard anew, and replace different shards of the same names.

    Raises:
        ConfigError: The shards of a corpus differ in dtype, or the folder holds other shards.
        TokenizerMismatchError: The shards were made with different tokenizers.
        ShardError: A shard cannot be used. Outputs written before stay.
    """
    if not target_tokens >= 1:
        raise ConfigError(f"target_tokens is {target_tokens}, expected 1 or more")
    sources = read_sources(inputs)
    check_tokenizers(sources)
    merged = plan_merge(sources, output, target_tokens=target_tokens)
    _check_output(output, merged)
    # Before anything is written: a refused command leaves the folder as it was.
    finished = set() if overwrite else {shard.prefix for shard in merged if _is_finished(shard)}
    for shard in merged:
        if shard.prefix in finished:
            remove_partials(shard.prefix)
        else:
            write_merged(shard)
    return merged


def write_merged(shard: MergedShard) -> None:
    """Write one output shard: both files beside their names, checked, then renamed.

    Raises:
        CorruptShardError: An input contradicts itself, or changed since it was opened.
        OutputError: The disk is full, or does not let the shard be written.
    """
    bin_path, idx_path = Path(f"{shard.prefix}.bin"), Path(f"{shard.prefix}.idx")
    with writing(bin_path.parent):
        bin_path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(shard.prefix)
    partial_bin, partial_idx = partial_path(bin_path), partial_path(idx_path)
    stamps = [file_signature(str(source.prefix)) for source in shard.sources]
    try:
        with writing(idx_path), partial_idx.open("wb") as idx:
            idx.writelines(_index_blocks(shard))
            flush_and_close(idx)
        with writing(bin_path), partial_bin.open("wb") as tokens:
            for source in shard.sources:
                _check_copied(source, append_file(Path(f"{source.prefix}.bin"), tokens))
            flush_and_close(tokens)
        ends = _joined_ends(shard, stamps)
        stamp = publish(shard.prefix, partial_bin, partial_idx, shard.record)
    finally:
        partial_bin.unlink(missing_ok=True)
        partial_idx.unlink(missing_ok=True)
    _check_written(shard)
    if ends is not None:
        write_ends(shard.prefix, ends, stamp)


def _joined_ends(shard: MergedShard, stamps: Sequence[FileSignature | None]) -> DocumentEnds | None:
    """How its documents end, where a record of every source says it.

    Args:
        shard: Its sources are copied by now.
        stamps: Of the sources, from before they were copied.
    """
    found: list[DocumentEnds] = []
    for source, stamp in zip(shard.sources, stamps, strict=True):
        if stamp is None or file_signature(str(source.prefix)) != stamp:
            return None
        ends = read_ends(str(source.prefix), stamp)
        if ends is None or ends.num_documents != source.num_documents:
            return None
        found.append(ends)
    return joined_ends(found)


def _index_blocks(shard: MergedShard) -> Iterator[bytes]:
    """The ``.idx`` of the output; every entry of the inputs is checked on the way."""
    for source in shard.sources:
        _check_source(source)

    def lens_blocks() -> Iterator[NDArray[np.int32]]:
        for source in shard.sources:
            yield from IndexArrays.open(source.prefix).lens_blocks()

    return encode_index_blocks(shard.header, lens_blocks, _document_blocks(shard))


def _document_blocks(shard: MergedShard) -> Iterator[NDArray[np.int64]]:
    num_sequences = 0
    for source in shard.sources:
        left = source.num_documents
        for documents in IndexArrays.open(source.prefix).document_blocks():
            # The last entry is where the next shard's first document starts.
            yield documents[:left] + num_sequences
            left -= len(documents)
        num_sequences += source.num_sequences
    yield np.array([num_sequences])


def _check_source(source: SourceShard) -> None:
    arrays = IndexArrays.open(source.prefix)
    arrays.check_documents()
    num_tokens = arrays.check_lens()
    if num_tokens != source.num_tokens:
        raise CorruptShardError(
            f"{arrays.file.path}: its lengths sum to {num_tokens:,} tokens, expected "
            f"{source.num_tokens:,}, as {source.prefix.name}.bin holds. Tokenise the shard again."
        )


def _check_copied(source: SourceShard, num_bytes: int) -> None:
    if num_bytes != source.num_bytes:
        raise CorruptShardError(
            f"{source.prefix}.bin: found {num_bytes:,} bytes, expected {source.num_bytes:,}. The "
            f"file changed while it was merged: merge again when nothing writes to it."
        )


def _check_written(shard: MergedShard) -> None:
    """Open the shard as a reader does, and compare it with what it was made of."""
    index = ShardIndex.open(shard.prefix)
    found = index.header, index.num_tokens
    if found != (shard.header, shard.num_tokens):
        raise CorruptShardError(
            f"{shard.prefix}: found {found} after writing, expected "
            f"{(shard.header, shard.num_tokens)}. Check the disk, and merge again."
        )


def _check_output(output: Path, merged: Sequence[MergedShard]) -> None:
    """Check that no input is written over, and that no other shard would stay in the folder."""
    sources = {os.path.realpath(f"{s.prefix}.bin") for shard in merged for s in shard.sources}
    for shard in merged:
        if os.path.realpath(f"{shard.prefix}.bin") in sources:
            raise ConfigError(
                f"{shard.prefix} is an input and would be written over. Choose another folder."
            )
    expected = {shard.prefix for shard in merged}
    found = find_shards(output) if output.exists() else []
    other = next((prefix for prefix in found if prefix not in expected), None)
    if other is not None:
        raise ConfigError(
            f"{output}: holds {other}, which this call does not write. Choose an empty folder, so "
            f"that no document is in it twice."
        )


def _is_finished(shard: MergedShard) -> bool:
    """Whether the shard is there, as this call would write it.

    A killed call may have put some of its files in place and not the others.

    Raises:
        ConfigError: A file of its names holds anything else.
    """
    record = b"" if shard.record is None else encode_record(shard.record)
    contents: dict[str, tuple[int, Callable[[], Iterable[bytes]]]] = {
        ".idx": (shard.header.file_bytes, lambda: map(bytes, _index_blocks(shard))),
        RECORD_SUFFIX: (len(record), lambda: [record]),
        ".bin": (shard.num_bytes, lambda: _token_blocks(shard)),
    }
    found = {suffix for suffix in contents if os.path.lexists(f"{shard.prefix}{suffix}")}
    for suffix, (num_bytes, blocks) in contents.items():
        path = Path(f"{shard.prefix}{suffix}")
        if suffix in found and not _holds(path, num_bytes, blocks):
            raise ConfigError(
                f"{path}: exists already, and differs from what this command would write. Choose "
                f"an empty folder, or replace it with --overwrite."
            )
    return found == {".idx", ".bin", *([RECORD_SUFFIX] if record else [])}


def _holds(path: Path, num_bytes: int, blocks: Callable[[], Iterable[bytes]]) -> bool:
    """Whether a file consists of ``blocks``, which have ``num_bytes`` together."""
    if not path.is_file() or path.stat().st_size != num_bytes:
        return False
    with open_file(path) as file:
        return all(file.read(len(block)) == block for block in blocks())


def _token_blocks(shard: MergedShard) -> Iterator[bytes]:
    for source in shard.sources:
        with open_file(Path(f"{source.prefix}.bin")) as file:
            while block := file.read(_COMPARED_BYTES):
                yield block
