"""``blendtitan merge``: many shards into few.

The kernel copies the tokens. The ``.idx`` of one input at a time is in memory.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from blendtitan.config import check_is_path
from blendtitan.errors import ConfigError, CorruptShardError, TokenizerMismatchError
from blendtitan.files import open_file
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.index_arrays import IndexArrays, encode_header
from blendtitan.storage.index_format import IndexHeader
from blendtitan.storage.list_forms import find_shards, named_shards
from blendtitan.storage.reader import FileSignature, ShardIndex, file_signature
from blendtitan.storage.record_files import TokenizerRecord, read_record
from blendtitan.storage.record_writer import encode_record, joined_ends, write_ends
from blendtitan.storage.records import RECORD_SUFFIX, DocumentEnds, read_ends
from blendtitan.storage.writer import append_file, docs_path, remove_partials, write_shard
from blendtitan.tables import Table
from blendtitan.visible import visible_logger

if TYPE_CHECKING:
    from blendtitan.document_sources import JoinedSources

logger = visible_logger(__name__)

_COMPARED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceShard:
    """An input shard."""

    prefix: Path
    corpus: str
    dtype: np.dtype[Any]
    num_sequences: int
    num_documents: int
    num_tokens: int
    header_bytes: int = 0
    """Bytes of its ``.bin`` before the tokens, if another program wrote it."""

    tokenizer: TokenizerIdentity | None = None
    """Its tokenizer, by its record. None: no record, or the record of another shard."""

    @classmethod
    def open(cls, prefix: Path, corpus: str) -> "SourceShard":
        """Check a shard as a reader does."""
        index, record = ShardIndex.open(prefix), read_record(prefix)
        if record and not record.describes(documents=index.num_documents, tokens=index.num_tokens):
            record = None
        num_sequences = index.header.num_sequences
        return cls(
            *(prefix, corpus, index.dtype, num_sequences, index.num_documents, index.num_tokens),
            index.start * index.dtype.itemsize,
            record and record.tokenizer,
        )

    @property
    def num_bytes(self) -> int:
        """Size of its tokens in the ``.bin``."""
        return self.num_tokens * self.dtype.itemsize

    def checked_arrays(self) -> IndexArrays:
        """The arrays of its ``.idx``; every entry is checked."""
        arrays = IndexArrays.open(self.prefix)
        arrays.check_documents()
        num_tokens = arrays.check_lens()
        if num_tokens != self.num_tokens:
            raise CorruptShardError(
                f"{arrays.path}: its lengths sum to {num_tokens:,} tokens, expected "
                f"{self.num_tokens:,}, as {self.prefix.name}.bin holds. Tokenise the shard again."
            )
        return arrays


@dataclass(frozen=True)
class MergedShard:
    """An output shard and the input shards that it consists of, in order."""

    prefix: Path
    corpus: str
    sources: tuple[SourceShard, ...]

    @property
    def num_documents(self) -> int:
        """Documents of all its sources."""
        return sum(source.num_documents for source in self.sources)

    @property
    def num_tokens(self) -> int:
        """Tokens of all its sources."""
        return sum(source.num_tokens for source in self.sources)

    @cached_property
    def docs(self) -> "JoinedSources | None":
        """The sources of its documents. None: no source has a record of them."""
        prefixes = [source.prefix for source in self.sources]
        if not any(docs_path(prefix).exists() for prefix in prefixes):
            return None
        # Imported on demand: pyarrow takes a tenth of a second.
        from blendtitan.document_sources import JoinedSources

        counts = [source.num_documents for source in self.sources]
        return JoinedSources.of_shards([*zip(prefixes, counts, strict=True)])

    @property
    def record(self) -> TokenizerRecord | None:
        """Its tokenizer. None unless every source has a record."""
        tokenizers = [source.tokenizer for source in self.sources]
        if tokenizers[0] is None or None in tokenizers:
            return None
        return TokenizerRecord(tokenizers[0], self.num_documents, self.num_tokens)

    def index_blocks(self) -> Iterator[bytes]:
        """Content of the ``.idx``, with the arrays of one source at a time in memory."""
        num_sequences = sum(source.num_sequences for source in self.sources)
        header = IndexHeader(self.sources[0].dtype, num_sequences, self.num_documents)
        yield encode_header(header)
        for source in self.sources:
            yield source.checked_arrays().lens.tobytes()
        num_bytes = 0
        for source in self.sources:
            moved = num_bytes - source.header_bytes
            yield (IndexArrays.open(source.prefix).pointers + moved).tobytes()
            num_bytes += source.num_bytes
        first = 0
        for source in self.sources:
            # The last entry is the start of the next shard's first document.
            yield (IndexArrays.open(source.prefix).documents[:-1] + first).tobytes()
            first += source.num_sequences
        yield np.array([first], "<i8").tobytes()

    def token_blocks(self) -> Iterator[bytes]:
        """Content of the ``.bin``."""
        for source in self.sources:
            with open_file(f"{source.prefix}.bin") as file:
                file.seek(source.header_bytes)
                while block := file.read(_COMPARED_BYTES):
                    yield block


def merge(
    inputs: Sequence[Path], output: Path, *, target_tokens: float, overwrite: bool = False
) -> list[MergedShard]:
    """Join neighbouring shards of each corpus into shards of up to ``target_tokens`` tokens.

    The inputs stay. Every output shard appears when it is complete. An interrupted call can be
    repeated: shards that already hold exactly the bytes to be written are kept.

    Args:
        inputs: Prefixes, folders of shards and file lists, as ``named_shards`` takes them.
        output: Folder of the new shards: ``output/CORPUS/00000``, ``00001``, and so on.
        target_tokens: A larger shard becomes an output of its own.
        overwrite: Write every shard again, and replace different shards of the same names.

    Raises:
        ConfigError: The shards of a corpus differ in dtype, one is in object storage, or the folder
            holds other shards.
        TokenizerMismatchError: The shards were made with different tokenizers.
        ShardError: A shard cannot be used. Outputs written before stay.
    """
    if not target_tokens >= 1:
        raise ConfigError(f"target_tokens is {target_tokens}, expected 1 or more")
    named = named_shards(inputs)
    for shard in named:
        check_is_path("a shard", shard.prefix)
    sources = [SourceShard.open(*shard) for shard in named]
    _check_tokenizers(sources)
    merged = plan_merge(sources, output, target_tokens=target_tokens)
    _check_output(output, merged)
    # Check first, so that a refused command leaves the folder unchanged.
    finished = set() if overwrite else {shard.prefix for shard in merged if _is_finished(shard)}
    for shard in merged:
        if shard.prefix in finished:
            remove_partials(shard.prefix)
        else:
            _write_merged(shard)
    return merged


def merge_table(shards: Iterable[MergedShard]) -> Table:
    """A row for each new shard."""
    table = Table(("shard", "made of", "documents", "tokens"))
    for shard in shards:
        counts = len(shard.sources), shard.num_documents, shard.num_tokens
        table.add_row(str(shard.prefix), *counts)
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
            f"corpus {corpus!r}: its shards go to a folder of this name, but it is not a valid "
            f"folder name. Rename the corpus in the file list."
        )
    first = sources[0]
    other = next((source for source in sources if source.dtype != first.dtype), None)
    if other is not None:
        raise ConfigError(
            f"corpus {corpus!r}: {other.prefix} holds tokens of type {other.dtype.name}, "
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
            f"{output}: holds {other}, which this command does not write. Choose an empty folder, "
            f"so "
            f"that no document is duplicated."
        )


def _is_finished(shard: MergedShard) -> bool:
    """Whether the shard exists as this call would write it; raise if it holds anything else.

    A killed call may have put only some of its files in place.
    """
    record = b"" if shard.record is None else encode_record(shard.record)
    contents: dict[str, Callable[[], Iterable[bytes]]] = {
        ".idx": shard.index_blocks,
        RECORD_SUFFIX: lambda: [record],
        ".bin": shard.token_blocks,
    }
    docs = shard.docs
    found = {suffix for suffix in contents if os.path.lexists(f"{shard.prefix}{suffix}")}
    for suffix, blocks in contents.items():
        path = Path(f"{shard.prefix}{suffix}")
        if suffix in found and not _holds(path, blocks()):
            raise _differs(path)
    has_docs = os.path.lexists(docs_path(shard.prefix))
    if has_docs and not _holds_docs(shard.prefix, docs):
        raise _differs(docs_path(shard.prefix))
    expected = {".idx", ".bin", *([RECORD_SUFFIX] if record else [])}
    return found == expected and has_docs == (docs is not None)


def _differs(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: exists already, and differs from what this command would write. Choose an empty "
        f"folder, or replace it with --overwrite."
    )


def _holds_docs(prefix: Path, docs: "JoinedSources | None") -> bool:
    from blendtitan.document_sources import open_sources

    with suppress(CorruptShardError), open_sources(prefix) as found:
        return docs is not None and found is not None and found.holds(docs.rows())
    return False


def _holds(path: Path, blocks: Iterable[bytes]) -> bool:
    if not path.is_file():
        return False
    with open_file(path) as file:
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)


def _write_merged(shard: MergedShard) -> None:
    signatures = [file_signature(str(source.prefix)) for source in shard.sources]

    def write_tokens(tokens: BinaryIO) -> None:
        for source in shard.sources:
            num_bytes = append_file(Path(f"{source.prefix}.bin"), tokens, start=source.header_bytes)
            if num_bytes != source.num_bytes:
                raise CorruptShardError(
                    f"{source.prefix}.bin: found {num_bytes:,} bytes, expected "
                    f"{source.num_bytes:,}. The file changed while it was merged: merge again when "
                    f"nothing writes to it."
                )

    docs = shard.docs
    signature = write_shard(
        shard.prefix,
        shard.index_blocks(),
        write_tokens,
        shard.record,
        write_docs=None if docs is None else docs.write,
    )
    # Open the shard as a reader does, and compare it with its sources.
    index = ShardIndex.open(shard.prefix)
    found = index.num_documents, index.num_tokens
    if found != (shard.num_documents, shard.num_tokens):
        raise CorruptShardError(
            f"{shard.prefix}: found {found[0]:,} documents of {found[1]:,} tokens after writing, "
            f"expected {shard.num_documents:,} of {shard.num_tokens:,}. Check the disk, and merge "
            f"again."
        )
    ends = _joined_ends(shard, signatures)
    if ends is not None:
        write_ends(shard.prefix, ends, signature)


def _joined_ends(
    shard: MergedShard, signatures: Sequence[FileSignature | None]
) -> DocumentEnds | None:
    """The record of document ends, if every source has a current one."""
    found: list[DocumentEnds] = []
    for source, signature in zip(shard.sources, signatures, strict=True):
        if signature is None or file_signature(str(source.prefix)) != signature:
            return None
        ends = read_ends(str(source.prefix), signature)
        if ends is None or ends.num_documents != source.num_documents:
            return None
        found.append(ends)
    return joined_ends(found)
