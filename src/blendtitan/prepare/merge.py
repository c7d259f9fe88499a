"""Many shards into few, streaming: tokens are copied by the kernel, the ``.idx`` in blocks."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError, TokenizerMismatchError
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.disk import written
from blendtitan.storage.document_ends import DocumentEnds, joined_ends
from blendtitan.storage.ends_record import read_ends, write_ends
from blendtitan.storage.file_list import named_shards
from blendtitan.storage.folders import find_shards
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.index_format import IndexHeader, encode_index_blocks
from blendtitan.storage.reader import ShardIndex
from blendtitan.storage.stamps import Stamp, stamp_of
from blendtitan.storage.tokenizer_records import TokenizerRecord, read_record
from blendtitan.storage.writer import (
    append_file,
    flush_and_close,
    partial_path,
    publish,
    remove_partials,
)
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class SourceShard:
    """What merging needs to know of an input shard."""

    prefix: Path
    corpus: str
    dtype: np.dtype[Any]
    num_sequences: int
    num_documents: int
    num_tokens: int

    tokenizer: TokenizerIdentity | None = None
    """By its record. None: it has none, or one that describes another shard."""

    @property
    def num_bytes(self) -> int:
        """Size of its ``.bin``."""
        return self.num_tokens * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class MergedShard:
    """An output shard and the input shards it is made of, in order."""

    prefix: Path
    corpus: str
    sources: tuple[SourceShard, ...]

    @property
    def header(self) -> IndexHeader:
        """The fixed fields of its ``.idx``."""
        return IndexHeader(
            self.sources[0].dtype,
            sum(source.num_sequences for source in self.sources),
            sum(source.num_documents for source in self.sources),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of all its sources."""
        return sum(source.num_tokens for source in self.sources)

    @property
    def record(self) -> TokenizerRecord | None:
        """Its tokenizer, where every source has a record: no more is claimed than is known."""
        tokenizers = [source.tokenizer for source in self.sources]
        if tokenizers[0] is None or None in tokenizers:
            return None
        return TokenizerRecord(tokenizers[0], self.header.num_documents, self.num_tokens)


def merge(inputs: Sequence[Path], output: Path, *, target_tokens: float) -> list[MergedShard]:
    """Join neighbouring shards of each corpus into shards of up to ``target_tokens`` tokens.

    The inputs stay. Every output shard appears when it is complete; interrupted, the call can be
    repeated, and writes every shard anew.

    Args:
        inputs: Prefixes, folders of shards and file lists, as ``named_shards`` takes them.
        output: Folder of the new shards: ``output/CORPUS/00000``, ``00001``, and so on.
        target_tokens: A shard that has more than this by itself becomes an output of its own.

    Raises:
        ConfigError: The shards of a corpus differ in dtype, or the folder holds other shards.
        TokenizerMismatchError: The shards were made with different tokenizers.
        ShardError: A shard cannot be used. Outputs written before stay.
    """
    if not target_tokens >= 1:
        raise ConfigError(f"target_tokens is {target_tokens}, expected 1 or more")
    sources = read_sources(inputs)
    _check_tokenizers(sources)
    merged = plan_merge(sources, output, target_tokens=target_tokens)
    _check_output(output, merged)
    for shard in merged:
        write_merged(shard)
    return merged


def read_sources(inputs: Sequence[Path]) -> list[SourceShard]:
    """Open every input shard once; none stays open.

    Raises:
        FileListError: An input cannot be used.
        ShardError: A shard cannot be opened.
    """
    return [_source(prefix, corpus) for prefix, corpus in named_shards(inputs)]


def plan_merge(
    sources: Sequence[SourceShard], output: Path, *, target_tokens: float
) -> list[MergedShard]:
    """Which shards are joined: neighbours of one corpus, as many as the target holds.

    Raises:
        ConfigError: The shards of a corpus differ in dtype, or its name cannot name a folder.
    """
    by_corpus: dict[str, list[SourceShard]] = {}
    for source in sources:
        by_corpus.setdefault(source.corpus, []).append(source)
    merged: list[MergedShard] = []
    for corpus, members in by_corpus.items():
        _check_corpus(corpus, members)
        for number, group in enumerate(_groups(members, target_tokens)):
            merged.append(MergedShard(output / corpus / f"{number:05d}", corpus, tuple(group)))
    return merged


def write_merged(shard: MergedShard) -> None:
    """Write one output shard: both files beside their names, checked, then renamed.

    Raises:
        CorruptShardError: An input contradicts itself, or changed since it was opened.
        OutputError: The disk is full, or does not let the shard be written.
    """
    bin_path, idx_path = Path(f"{shard.prefix}.bin"), Path(f"{shard.prefix}.idx")
    with written(bin_path.parent):
        bin_path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(shard.prefix)
    partial_bin, partial_idx = partial_path(bin_path), partial_path(idx_path)
    stamps = [stamp_of(str(source.prefix)) for source in shard.sources]
    try:
        with written(idx_path), partial_idx.open("wb") as idx:
            idx.writelines(_index_blocks(shard))
            flush_and_close(idx)
        with written(bin_path), partial_bin.open("wb") as tokens:
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


def _joined_ends(shard: MergedShard, stamps: Sequence[Stamp | None]) -> DocumentEnds | None:
    """How its documents end, where a record of every source says it.

    Args:
        shard: Its sources are copied by now.
        stamps: Of the sources, from before they were copied.
    """
    found: list[DocumentEnds] = []
    for source, stamp in zip(shard.sources, stamps, strict=True):
        if stamp is None or stamp_of(str(source.prefix)) != stamp:
            return None
        ends = read_ends(str(source.prefix), stamp)
        if ends is None or ends.num_documents != source.num_documents:
            return None
        found.append(ends)
    return joined_ends(found)


def _source(prefix: Path, corpus: str) -> SourceShard:
    index = ShardIndex.open(prefix)
    record = read_record(prefix)
    if record and not record.describes(documents=index.num_documents, tokens=index.num_tokens):
        record = None
    return SourceShard(
        prefix,
        corpus,
        index.dtype,
        index.header.num_sequences,
        index.num_documents,
        index.num_tokens,
        record and record.tokenizer,
    )


def _groups(sources: Sequence[SourceShard], target_tokens: float) -> Iterator[list[SourceShard]]:
    group: list[SourceShard] = []
    num_tokens = 0
    for source in sources:
        if group and num_tokens + source.num_tokens > target_tokens:
            yield group
            group, num_tokens = [], 0
        group.append(source)
        num_tokens += source.num_tokens
    yield group


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


def _check_corpus(corpus: str, sources: Sequence[SourceShard]) -> None:
    if corpus in (".", "..") or "/" in corpus:
        raise ConfigError(
            f"corpus {corpus!r}: its shards go to a folder of this name, which cannot be one. "
            f"Give it another name in the file list."
        )
    first = sources[0]
    for source in sources:
        if source.dtype != first.dtype:
            raise ConfigError(
                f"corpus {corpus!r}: {source.prefix} holds tokens of type {source.dtype.name}, "
                f"{first.prefix} of type {first.dtype.name}, expected one type. Merge them into "
                f"different folders, or tokenise one of them again."
            )


def _check_tokenizers(sources: Sequence[SourceShard]) -> None:
    """Check that no two inputs are known to be of different tokenizers.

    Raises:
        TokenizerMismatchError: Two are.
    """
    recorded = [source for source in sources if source.tokenizer is not None]
    for source in recorded:
        if source.tokenizer is not None and not source.tokenizer.is_same(recorded[0].tokenizer):
            raise TokenizerMismatchError(
                f"{recorded[0].prefix} was made with {recorded[0].tokenizer}, {source.prefix} with "
                f"{source.tokenizer}. Merge the shards of each tokenizer into a folder of its own."
            )
    num_unknown = len(sources) - len(recorded)
    if recorded and num_unknown:
        logger.warning(
            "%d of %d shards have no record of their tokenizer. A merged shard that contains one "
            "has no record either; a run compares a sample of its tokens instead.",
            *(num_unknown, len(sources)),
        )


def _check_output(output: Path, merged: Sequence[MergedShard]) -> None:
    """Check that no input is written over, and that no other shard would stay in the folder."""
    sources = {os.path.realpath(f"{s.prefix}.bin") for shard in merged for s in shard.sources}
    for shard in merged:
        if os.path.realpath(f"{shard.prefix}.bin") in sources:
            raise ConfigError(
                f"{shard.prefix} is an input and would be written over. Choose another folder."
            )
    written = {shard.prefix for shard in merged}
    found = find_shards(output) if output.exists() else []
    other = next((prefix for prefix in found if prefix not in written), None)
    if other is not None:
        raise ConfigError(
            f"{output}: holds {other}, which this call does not write. Choose an empty folder, so "
            f"that no document is in it twice."
        )
