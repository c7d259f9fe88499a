"""Complete checks of shards, beyond those of opening and reading: ``blendtitan verify``."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from blendtitan.config import check_at_least
from blendtitan.document_sources import recorded_fields
from blendtitan.errors import MissingShardError, ShardError
from blendtitan.identity import TokenizerIdentity
from blendtitan.shards.encoding import Comparison, Encoding, compare_encoding, encoding_problems
from blendtitan.shards.tokens import TextSymbols, TokenSummary, summarize_tokens
from blendtitan.storage.index_arrays import IndexArrays, document_ends
from blendtitan.storage.list_forms import (
    NamedShard,
    corpus_in_folder,
    find_catalogs,
    named_shards,
)
from blendtitan.storage.reader import FileSignature, OpenFile, ShardIndex, file_signature
from blendtitan.storage.record_files import TokenizerRecord, read_record, record_path
from blendtitan.storage.record_writer import write_ends
from blendtitan.storage.records import CATALOG_FILE, CatalogEntry, FolderCatalogs, read_ends
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """The expected properties of the tokens. None: no comparison."""

    vocab_size: int | None = None
    eod_id: int | None = None
    encoding: Encoding | None = None
    symbols: TextSymbols | None = None

    def __post_init__(self) -> None:
        if self.vocab_size is not None:
            check_at_least("vocab_size", self.vocab_size, 1)
        if self.eod_id is not None:
            check_at_least("eod_id", self.eod_id, 0)

    def with_tokenizer(self, tokenizer: Tokenizer, *, documents: int) -> Self:
        """Also compare with a tokenizer: its vocabulary and EOD if they are None, and its ids.

        ``documents`` of each shard are encoded again.
        """
        eod_id = self.eod_id
        if eod_id is None and tokenizer.eos_id != ABSENT:
            eod_id = tokenizer.eos_id
        return replace(
            self,
            vocab_size=tokenizer.vocab_size if self.vocab_size is None else self.vocab_size,
            eod_id=eod_id,
            encoding=Encoding(tokenizer, eod_id, documents),
            symbols=TextSymbols.of_tokenizer(tokenizer),
        )

    def with_eod(self, eod_id: int) -> Self:
        """The same with another EOD."""
        encoding = self.encoding and replace(self.encoding, eod_id=eod_id)
        return replace(self, eod_id=eod_id, encoding=encoding)


@dataclass(slots=True)
class VerifiedShard:
    """The findings of one shard. ``index`` and ``tokens`` are None if they were not read."""

    prefix: Path
    corpus: str
    index: ShardIndex | None = None
    tokens: TokenSummary | None = None
    comparison: Comparison | None = None
    entry: CatalogEntry | None = None
    """Its entry in the catalog. None: it is not listed, so there are no checksums."""

    tokenizer: TokenizerIdentity | None = None
    """The tokenizer in the record beside it. None: it has no record."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept_fields: tuple[str, ...] | None = None
    """Fields recorded with the sources of its documents. None: these are not recorded."""

    signature: FileSignature | None = None
    has_recorded_eod: bool = False
    """Whether its EOD comes from a record beside it, because none was given."""

    is_recorded: bool = False
    """Whether a record beside the shard describes the ends of its documents."""

    def json(self) -> dict[str, Any]:
        """The shard as JSON."""
        index, tokens, compared = self.index, self.tokens, self.comparison
        with_eod = tokens if tokens and tokens.eod_id is not None else None
        with_unknown = tokens if tokens and tokens.unk_id is not None else None
        return {
            "prefix": str(self.prefix),
            "corpus": self.corpus,
            "documents": index and index.num_documents,
            "tokens": index and index.num_tokens,
            "smallest_id": tokens and tokens.min_id,
            "largest_id": tokens and tokens.max_id,
            "empty_documents": tokens and tokens.num_empty,
            "first_token": tokens and tokens.first_token,
            "documents_with_first_token": tokens and tokens.num_begin,
            "documents_with_eod": with_eod and with_eod.num_eod,
            "documents_of_eod_only": with_eod and with_eod.num_eod_only,
            "documents_with_unknown": with_unknown and with_unknown.num_unknown,
            "documents_compared": compared and compared.documents,
            "documents_differing": compared and len(compared.differing),
            "documents_unjudged": compared and compared.unjudged,
            "has_checksums": self.entry is not None,
            "document_ends_recorded": self.is_recorded,
            "sources_recorded": self.kept_fields is not None,
            "kept_fields": list(self.kept_fields or ()),
            "tokenizer": None if self.tokenizer is None else asdict(self.tokenizer),
            "notes": self.notes,
            "problems": self.problems,
        }


def verify(
    inputs: Sequence[Path], expected: Expected, *, threads: int | None = None
) -> list[VerifiedShard]:
    """Check every shard, and continue after damaged shards.

    Args:
        inputs: Prefixes, folders of shards and file lists.
        expected: The vocabulary and EOD.
        threads: Shards read at once. None: one per core. Reading and comparing release the
            interpreter, so threads are as fast as processes.

    Raises:
        ConfigError: An input or the number of threads cannot be used.
    """
    if threads is not None:
        check_at_least("threads", threads, 1)
    catalogs = FolderCatalogs()
    shards = named_shards(inputs)
    shards += _missing_shards(catalogs, inputs, shards)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(lambda shard: verify_shard(shard, expected, catalogs), shards))


def _missing_shards(
    catalogs: FolderCatalogs, inputs: Sequence[Path], found: Sequence[NamedShard]
) -> list[NamedShard]:
    """Shards that a catalog below one of the folders lists but that are not there."""
    known = {shard.prefix.absolute() for shard in found}
    listed = {
        folder / name: path
        for path in inputs
        if path.is_dir()
        for folder in find_catalogs(path)
        for name in catalogs.of_folder(folder.absolute()) or ()
    }
    return [
        NamedShard(prefix, corpus_in_folder(prefix, path))
        for prefix, path in listed.items()
        if prefix.absolute() not in known
    ]


def verify_shard(shard: NamedShard, expected: Expected, catalogs: FolderCatalogs) -> VerifiedShard:
    """Check one shard: its ``.idx`` and, if that is sound, its tokens and checksums."""
    found = VerifiedShard(*shard, signature=file_signature(str(shard.prefix)))
    try:
        found.entry = catalogs.entry(str(shard.prefix.absolute()))
        found.index = index = ShardIndex.open(shard.prefix)
        arrays = IndexArrays.of_file(index.file)
        found.problems += index_problems(index, arrays)
        if found.entry is not None:
            content = index.file.read(index.file.num_bytes, at=0)
            digest, listed = xxh3_128(content).hexdigest(), found.entry.idx_digest
            if digest != listed:
                found.problems.append(_checksum_problem(index.file.path, digest, listed))
        record, record_problems = _read_record(index)
        found.tokenizer = record and record.tokenizer
        if not found.problems:
            eod_id = _recorded_eod(found, record) if expected.eod_id is None else None
            if eod_id is not None:
                found.has_recorded_eod, expected = True, expected.with_eod(eod_id)
            ends = index.start + document_ends(arrays.lens, arrays.documents)
            _verify_tokens(found, index, ends, expected)
        if expected.encoding is not None and not found.problems:
            found.comparison = compare_encoding(index, expected.encoding)
            found.problems += encoding_problems(index, expected.encoding, found.comparison)
        found.problems += record_problems
        found.kept_fields = recorded_fields(index.prefix, index.num_documents, whole=True)
    except ShardError as error:
        is_lost = found.entry is not None and isinstance(error, MissingShardError)
        listed = f" {CATALOG_FILE} lists this shard." if is_lost else ""
        found.problems.append(f"{error}{listed}")
    return found


def index_problems(index: ShardIndex, arrays: IndexArrays) -> Iterator[str]:
    """Problems with the arrays of an ``.idx``, except those that opening it checks."""
    try:
        num_tokens = arrays.check_lens()
        if num_tokens != index.num_tokens:
            yield (
                f"{index.file.path}: its lengths sum to {num_tokens:,} tokens, expected "
                f"{index.num_tokens:,}, the size of the .bin. Tokenise the shard again."
            )
    except ShardError as error:
        yield str(error)
    try:
        arrays.check_documents()
    except ShardError as error:
        yield str(error)


def _read_record(index: ShardIndex) -> tuple[TokenizerRecord | None, list[str]]:
    """The record of a shard's tokenizer, if it is good, and its problems."""
    try:
        record = read_record(index.prefix)
    except ShardError as error:
        return None, [str(error)]
    if record is None or record.describes(documents=index.num_documents, tokens=index.num_tokens):
        return record, []
    size = f"{counted(record.documents, 'document')} and {counted(record.tokens, 'token')}"
    return None, [
        f"{record_path(index.prefix)}: describes a shard of {size}, but the shard beside it has "
        f"{index.num_documents:,} and {index.num_tokens:,}. Another program replaced the shard, or "
        f"the record belongs to another one. Delete the record, or copy it again with its shard."
    ]


def _recorded_eod(found: VerifiedShard, record: TokenizerRecord | None) -> int | None:
    """EOD from the tokenizer's record, or else from the record of document ends."""
    if record is not None and record.tokenizer.eod_id is not None:
        return record.tokenizer.eod_id
    ends = found.signature and read_ends(str(found.prefix), found.signature)
    return None if ends is None or ends.lacks_eod else ends.eod_id


def _verify_tokens(
    found: VerifiedShard,
    index: ShardIndex,
    ends_of_documents: NDArray[np.int64],
    expected: Expected,
) -> None:
    """Read the ``.bin`` once, for all checks."""
    parts = () if found.entry is None else found.entry.bin_digests
    digests = [xxh3_128() for _ in parts]
    ends = np.cumsum([num_bytes for num_bytes, _ in parts])
    position = 0

    def add_to_digests(data: memoryview) -> None:
        nonlocal position
        while len(data) and (part := int(np.searchsorted(ends, position, "right"))) < len(parts):
            taken = data[: int(ends[part]) - position]
            digests[part].update(taken)
            position, data = position + len(taken), data[len(taken) :]

    found.tokens = summarize_tokens(
        OpenFile.open(f"{index.prefix}.bin"),
        index.dtype,
        ends_of_documents,
        start=index.start,
        eod_id=expected.eod_id,
        vocab_size=expected.vocab_size,
        symbols=expected.symbols,
        on_block=add_to_digests,
    )
    found.problems += _token_problems(found.prefix, found.tokens, expected)
    for (num_bytes, listed), digest, end in zip(parts, digests, ends, strict=True):
        if digest.hexdigest() != listed:
            where = f"{found.prefix}.bin, bytes {end - num_bytes:,} to {end - 1:,}"
            found.problems.append(_checksum_problem(where, digest.hexdigest(), listed))
            return


def _checksum_problem(where: str, found: str, expected: str) -> str:
    return (
        f"{where}: the checksum is {found}, expected {expected}, from {CATALOG_FILE}. The file was "
        f"damaged or changed: copy both files of the shard again, or tokenise it again. After a "
        f"deliberate change, delete {CATALOG_FILE}."
    )


def _token_problems(prefix: Path, tokens: TokenSummary, expected: Expected) -> Iterator[str]:
    if tokens.first_outside is not None:
        token_id, document_id = tokens.first_outside
        size = expected.vocab_size
        yield (
            f"{prefix}.bin: document {document_id} holds the token id {token_id}, expected ids "
            f"from 0{'' if size is None else f' to {size - 1}'}. The shard was written with "
            f"another tokenizer, or is damaged: tokenise it again."
        )
    if tokens.is_mixed:
        empty = f" (and {tokens.num_empty:,} empty ones)" if tokens.num_empty else ""
        yield (
            f"{prefix}: {tokens.num_eod:,} of {tokens.num_filled:,} documents end in EOD "
            f"({expected.eod_id}){empty}, expected all or none; the first that does not is "
            f"document {tokens.first_without_eod}. Tokenise the shard again, or train with "
            f"append_eod = false."
        )


def record_document_ends(shards: Iterable[VerifiedShard]) -> None:
    """Write a record of document ends beside each shard, for training.

    An earlier record of another EOD is kept, unless the shard is good with this one.
    """
    for shard in shards:
        ends = shard.tokens and shard.tokens.document_ends
        if ends is None or shard.signature is None:
            continue
        if shard.problems or ends.lacks_eod:
            recorded = read_ends(str(shard.prefix), shard.signature)
            if recorded is not None and recorded.eod_id != ends.eod_id:
                continue
        shard.is_recorded = write_ends(shard.prefix, ends, shard.signature)


def check_sound(shards: Sequence[VerifiedShard]) -> None:
    """Check that no shard has a problem; raises ShardError with all problems."""
    problems = [problem for shard in shards for problem in shard.problems]
    if problems:
        num_bad = sum(bool(shard.problems) for shard in shards)
        verb = "is" if len(shards) == 1 else "are"
        raise ShardError(*problems, f"{num_bad:,} of {counted(len(shards), 'shard')} {verb} bad")
