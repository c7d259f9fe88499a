"""``blendtitan merge``: many shards into few, streaming.

The kernel copies the tokens, and the ``.idx`` is written in blocks, so memory does not grow.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from blendtitan.errors import ConfigError, CorruptShardError, TokenizerMismatchError
from blendtitan.files import open_file
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.atomic_files import flush_and_close, partial_path, writing
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.index_format import IndexHeader
from blendtitan.storage.list_forms import find_shards, named_shards
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.record_files import (
    TokenizerRecord,
    encode_record,
    joined_ends,
    read_record,
    write_ends,
)
from blendtitan.storage.records import RECORD_SUFFIX, DocumentEnds, read_ends
from blendtitan.storage.writer import append_file, encode_index_blocks, publish, remove_partials
from blendtitan.tables import Table, number_table
from blendtitan.visible import visible_logger

logger = visible_logger(__name__)

_COMPARED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceShard:
    """What merging needs to know about an input shard."""

    prefix: Path
    corpus: str
    dtype: np.dtype[Any]
    num_sequences: int
    num_documents: int
    num_tokens: int

    tokenizer: TokenizerIdentity | None = None
    """From its record. None: there is none, or it describes another shard."""

    @property
    def num_bytes(self) -> int:
        """Size of its ``.bin``."""
        return self.num_tokens * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class MergedShard:
    """An output shard and the input shards that it consists of, in order."""

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
        """Its tokenizer. None unless every source has a record."""
        tokenizers = [source.tokenizer for source in self.sources]
        if tokenizers[0] is None or None in tokenizers:
            return None
        return TokenizerRecord(tokenizers[0], self.header.num_documents, self.num_tokens)


def merge(
    inputs: Sequence[Path], output: Path, *, target_tokens: float, overwrite: bool = False
) -> list[MergedShard]:
    """Join neighbouring shards of each corpus into shards of up to ``target_tokens`` tokens.

    The inputs stay. Every output shard appears when it is complete. An interrupted call can be
    repeated: shards that already hold exactly the bytes to be written stay as they are.

    Args:
        inputs: Prefixes, folders of shards and file lists, as ``named_shards`` takes them.
        output: Folder of the new shards: ``output/CORPUS/00000``, ``00001``, and so on.
        target_tokens: A shard that has more tokens by itself becomes an output of its own.
        overwrite: Write every shard anew, and replace different shards of the same names.

    Raises:
        ConfigError: The shards of a corpus differ in dtype, or the folder holds other shards.
        TokenizerMismatchError: The shards were made with different tokenizers.
        ShardError: A shard cannot be used. Outputs written before stay.
    """
    if not target_tokens >= 1:
        raise ConfigError(f"target_tokens is {target_tokens}, expected 1 or more")
    sources = [_source(prefix, corpus) for prefix, corpus in named_shards(inputs)]
    _check_tokenizers(sources)
    merged = plan_merge(sources, output, target_tokens=target_tokens)
    _check_output(output, merged)
    # Before anything is written: a refused command leaves the folder as it was.
    finished = set() if overwrite else {shard.prefix for shard in merged if _is_finished(shard)}
    for shard in merged:
        if shard.prefix in finished:
            remove_partials(shard.prefix)
        else:
            _write_merged(shard)
    return merged


def merge_table(shards: Iterable[MergedShard]) -> Table:
    """A row for each new shard."""
    table = number_table("shard", "made of", "documents", "tokens")
    for shard in shards:
        counts = len(shard.sources), shard.header.num_documents, shard.num_tokens
        table.add_row(str(shard.prefix), *(f"{count:,}" for count in counts))
    return table


def plan_merge(
    sources: Sequence[SourceShard], output: Path, *, target_tokens: float
) -> list[MergedShard]:
    """Group neighbouring shards of each corpus, as many as the target holds."""
    by_corpus: dict[str, list[SourceShard]] = {}
    for source in sources:
        by_corpus.setdefault(source.corpus, []).append(source)
    merged: list[MergedShard] = []
    for corpus, members in by_corpus.items():
        _check_corpus(corpus, members)
        for number, group in enumerate(_groups(members, target_tokens)):
            merged.append(MergedShard(output / corpus / f"{number:05d}", corpus, tuple(group)))
    return merged


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


def _source(prefix: Path, corpus: str) -> SourceShard:
    index = ShardIndex.open(prefix)
    record = read_record(prefix)
    if record and not record.describes(documents=index.num_documents, tokens=index.num_tokens):
        record = None
    return SourceShard(
        *(prefix, corpus, index.dtype),
        *(index.header.num_sequences, index.num_documents, index.num_tokens),
        record and record.tokenizer,
    )


def _check_tokenizers(sources: Sequence[SourceShard]) -> None:
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


def _check_output(output: Path, merged: Sequence[MergedShard]) -> None:
    """Check that no input is overwritten, and that the folder holds no other shard."""
    sources = {os.path.realpath(f"{s.prefix}.bin") for shard in merged for s in shard.sources}
    for shard in merged:
        if os.path.realpath(f"{shard.prefix}.bin") in sources:
            raise ConfigError(
                f"{shard.prefix} is an input and would be overwritten. Choose another folder."
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
    """Whether the shard exists as this call would write it; raise if it holds anything else.

    A killed call may have put only some of its files in place.
    """
    record = b"" if shard.record is None else encode_record(shard.record)
    token_bytes = sum(source.num_bytes for source in shard.sources)
    contents: dict[str, tuple[int, Callable[[], Iterable[bytes]]]] = {
        ".idx": (shard.header.file_bytes, lambda: map(bytes, _index_blocks(shard))),
        RECORD_SUFFIX: (len(record), lambda: [record]),
        ".bin": (token_bytes, lambda: _token_blocks(shard)),
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
    if not path.is_file() or path.stat().st_size != num_bytes:
        return False
    with open_file(path) as file:
        return all(file.read(len(block)) == block for block in blocks())


def _token_blocks(shard: MergedShard) -> Iterator[bytes]:
    for source in shard.sources:
        with open_file(Path(f"{source.prefix}.bin")) as file:
            while block := file.read(_COMPARED_BYTES):
                yield block


def _write_merged(shard: MergedShard) -> None:
    stamps = [file_signature(str(source.prefix)) for source in shard.sources]

    def write_tokens(tokens: BinaryIO) -> None:
        for source in shard.sources:
            num_bytes = append_file(Path(f"{source.prefix}.bin"), tokens)
            if num_bytes != source.num_bytes:
                raise CorruptShardError(
                    f"{source.prefix}.bin: found {num_bytes:,} bytes, expected "
                    f"{source.num_bytes:,}. The file changed while it was merged: merge again when "
                    f"nothing writes to it."
                )

    stamp = write_shard(shard.prefix, _index_blocks(shard), write_tokens, shard.record)
    # Open the shard as a reader does, and compare it with its sources.
    index = ShardIndex.open(shard.prefix)
    found, expected = (index.header, index.num_tokens), (shard.header, shard.num_tokens)
    if found != expected:
        raise CorruptShardError(
            f"{shard.prefix}: found {found} after writing, expected {expected}. Check the disk, "
            f"and merge again."
        )
    ends = _joined_ends(shard, stamps)
    if ends is not None:
        write_ends(shard.prefix, ends, stamp)


def write_shard(
    prefix: Path,
    index_blocks: Iterable[bytes],
    write_tokens: Callable[[BinaryIO], None],
    record: TokenizerRecord | None = None,
) -> FileSignature:
    """Write both files of a shard beside their names, then rename them; returns their signature.

    Args:
        prefix: Path of the shard without its suffix.
        index_blocks: Content of the ``.idx``.
        write_tokens: Writes the content of the ``.bin``.
        record: The tokenizer of the shard, if it is known.
    """
    bin_path, idx_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    with writing(bin_path.parent):
        bin_path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(prefix)
    partial_bin, partial_idx = partial_path(bin_path), partial_path(idx_path)
    try:
        with writing(idx_path), partial_idx.open("wb") as idx:
            idx.writelines(index_blocks)
            flush_and_close(idx)
        with writing(bin_path), partial_bin.open("wb") as tokens:
            write_tokens(tokens)
            flush_and_close(tokens)
        return publish(prefix, partial_bin, partial_idx, record)
    finally:
        partial_bin.unlink(missing_ok=True)
        partial_idx.unlink(missing_ok=True)


def _joined_ends(shard: MergedShard, stamps: Sequence[FileSignature | None]) -> DocumentEnds | None:
    """How its documents end, if every source has a record of it and did not change since."""
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
    """The ``.idx`` of the output. Every entry of the inputs is checked first."""
    for source in shard.sources:
        arrays = IndexArrays.open(source.prefix)
        arrays.check_documents()
        num_tokens = arrays.check_lens()
        if num_tokens != source.num_tokens:
            raise CorruptShardError(
                f"{arrays.file.path}: its lengths sum to {num_tokens:,} tokens, expected "
                f"{source.num_tokens:,}, as {source.prefix.name}.bin holds. Tokenise the shard "
                f"again."
            )

    def lens_blocks() -> Iterator[NDArray[np.int32]]:
        for source in shard.sources:
            yield from IndexArrays.open(source.prefix).lens_blocks()

    return encode_index_blocks(shard.header, lens_blocks, _document_blocks(shard))


def _document_blocks(shard: MergedShard) -> Iterator[NDArray[np.int64]]:
    num_sequences = 0
    for source in shard.sources:
        left = source.num_documents
        for documents in IndexArrays.open(source.prefix).document_blocks():
            # The last entry is the start of the next shard's first document.
            yield documents[:left] + num_sequences
            left -= len(documents)
        num_sequences += source.num_sequences
    yield np.array([num_sequences])
