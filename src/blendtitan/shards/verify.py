"""Complete checks of shards, beyond what opening and reading check: ``blendtitan verify``."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from blendtitan.config import check_at_least
from blendtitan.errors import MissingShardError, ShardError
from blendtitan.identity import TokenizerIdentity
from blendtitan.shards.checksums import Catalogs, PartDigests, bin_problems, idx_problems
from blendtitan.shards.document_lengths import document_ends
from blendtitan.shards.encoding import (
    Comparison,
    Encoding,
    compare_encoding,
    encoding_problems,
)
from blendtitan.shards.tokens import TextSymbols, TokenSummary, summarize_tokens, text_notes
from blendtitan.storage.index_arrays import IndexArrays
from blendtitan.storage.list_forms import NamedShard, named_shards
from blendtitan.storage.reader import FileSignature, OpenFile, ShardIndex, file_signature
from blendtitan.storage.record_files import read_record, record_path, write_ends
from blendtitan.storage.records import CATALOG_FILE, ENDS_SUFFIX, CatalogEntry, read_ends
from blendtitan.tables import Table, filled_table
from blendtitan.tokenizers import ABSENT, Tokenizer
from blendtitan.visible import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the tokens are compared with. None: no comparison."""

    vocab_size: int | None = None
    eod_id: int | None = None
    encoding: Encoding | None = None
    """The tokenizer with which documents are encoded again."""

    symbols: TextSymbols | None = None

    def __post_init__(self) -> None:
        if self.vocab_size is not None:
            check_at_least("vocab_size", self.vocab_size, 1)
        if self.eod_id is not None:
            check_at_least("eod_id", self.eod_id, 0)

    def with_tokenizer(self, tokenizer: Tokenizer, *, documents: int) -> Self:
        """Also compare with a tokenizer: its vocabulary and EOD where they are None, and its ids.

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


@dataclass(slots=True)
class VerifiedShard:
    """What was found in one shard. ``index`` and ``tokens`` are None where they were not read."""

    prefix: Path
    corpus: str
    index: ShardIndex | None = None
    tokens: TokenSummary | None = None
    comparison: Comparison | None = None
    """Documents that were encoded again."""

    entry: CatalogEntry | None = None
    """Its entry in the catalog. None: it is not listed, so there are no checksums."""

    tokenizer: TokenizerIdentity | None = None
    """What made it, by the record beside it. None: it has no record."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is not a fault, but should be known."""

    stamp: FileSignature | None = None
    """Signature of its files, taken before they were read."""

    has_recorded_eod: bool = False
    """Whether its EOD comes from a record beside it, because none was given."""

    is_recorded: bool = False
    """Whether a record beside the shard says how its documents end."""

    def json(self) -> dict[str, Any]:
        """The shard for programs."""
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
            "tokenizer": None if self.tokenizer is None else asdict(self.tokenizer),
            "notes": self.notes,
            "problems": self.problems,
        }


def verify(
    inputs: Sequence[Path], expected: Expected, *, threads: int | None = None
) -> list[VerifiedShard]:
    """Check every shard; a damaged shard does not keep the others from being checked.

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
    catalogs = Catalogs()
    shards = named_shards(inputs)
    shards += catalogs.missing(inputs, shards)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(lambda shard: verify_shard(shard, expected, catalogs), shards))


def verify_shard(shard: NamedShard, expected: Expected, catalogs: Catalogs) -> VerifiedShard:
    """Check one shard: first its ``.idx``; where that is sound, its tokens and checksums."""
    found = VerifiedShard(*shard, stamp=file_signature(str(shard.prefix)))
    try:
        found.entry = catalogs.entry(str(shard.prefix.absolute()))
        found.index = ShardIndex.open(shard.prefix)
        found.problems += index_problems(found.index)
        if found.entry is not None:
            found.problems += idx_problems(shard.prefix, found.entry)
        if not found.problems:
            expected = _with_eod(found, found.index, expected)
            _verify_tokens(found, found.index, expected)
            _verify_encoding(found, found.index, expected.encoding)
        found.problems += _record_problems(found, found.index)
    except ShardError as error:
        is_lost = found.entry is not None and isinstance(error, MissingShardError)
        listed = f" {CATALOG_FILE} lists this shard." if is_lost else ""
        found.problems.append(f"{error}{listed}")
    return found


def record_document_ends(shards: Iterable[VerifiedShard]) -> None:
    """Record beside each shard how its documents end, for training.

    An earlier record of another EOD is kept, unless the shard is good with this one.
    """
    for shard in shards:
        ends = shard.tokens and shard.tokens.document_ends
        if ends is None or shard.stamp is None:
            continue
        if shard.problems or ends.lacks_eod:
            recorded = read_ends(str(shard.prefix), shard.stamp)
            if recorded is not None and recorded.eod_id != ends.eod_id:
                continue
        shard.is_recorded = write_ends(shard.prefix, ends, shard.stamp)


def index_problems(index: ShardIndex) -> Iterator[str]:
    """What is wrong with the arrays of an ``.idx`` whose ends were checked when it was opened."""
    arrays = IndexArrays(index.header, index.file)
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


def _with_eod(found: VerifiedShard, index: ShardIndex, expected: Expected) -> Expected:
    """The expectation, with the EOD of the records beside the shard where none was given."""
    eod_id = _recorded_eod(index, found.stamp) if expected.eod_id is None else None
    if eod_id is None:
        return expected
    found.has_recorded_eod = True
    encoding = expected.encoding and replace(expected.encoding, eod_id=eod_id)
    return replace(expected, eod_id=eod_id, encoding=encoding)


def _recorded_eod(index: ShardIndex, stamp: FileSignature | None) -> int | None:
    """The token that ends documents, by the tokenizer's record, else by that of document ends."""
    try:
        record = read_record(index.prefix)
    except ShardError:  # reported with the other problems
        record = None
    size = {"documents": index.num_documents, "tokens": index.num_tokens}
    if record is not None and record.tokenizer.eod_id is not None and record.describes(**size):
        return record.tokenizer.eod_id
    ends = stamp and read_ends(str(index.prefix), stamp)
    return None if ends is None or ends.lacks_eod else ends.eod_id


def _verify_tokens(found: VerifiedShard, index: ShardIndex, expected: Expected) -> None:
    """Read the ``.bin`` once, for everything."""
    parts = () if found.entry is None else found.entry.bin_digests
    digests = PartDigests([num_bytes for num_bytes, _ in parts])
    found.tokens = summarize_tokens(
        OpenFile.open(f"{index.prefix}.bin"),
        index.dtype,
        document_ends(index),
        eod_id=expected.eod_id,
        vocab_size=expected.vocab_size,
        symbols=expected.symbols,
        on_block=digests.update,
    )
    found.problems += _token_problems(found.prefix, found.tokens, expected)
    if found.entry is not None:
        found.problems += bin_problems(found.prefix, found.entry, digests.hexdigests())


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


def _verify_encoding(found: VerifiedShard, index: ShardIndex, encoding: Encoding | None) -> None:
    """Encode a sample of the documents again, unless the shard has ids of another vocabulary."""
    if encoding is not None and not found.problems:
        found.comparison = compare_encoding(index, encoding)
        found.problems += encoding_problems(index, encoding, found.comparison)


def _record_problems(found: VerifiedShard, index: ShardIndex) -> Iterator[str]:
    """What is wrong with the tokenizer record; a good one is noted in ``found``."""
    try:
        record = read_record(found.prefix)
    except ShardError as error:
        yield str(error)
        return
    if record is None:
        return
    if record.describes(documents=index.num_documents, tokens=index.num_tokens):
        found.tokenizer = record.tokenizer
        return
    size = f"{counted(record.documents, 'document')} and {counted(record.tokens, 'token')}"
    yield (
        f"{record_path(found.prefix)}: describes a shard of {size}, but the shard beside it has "
        f"{index.num_documents:,} and {index.num_tokens:,}. Another program replaced the shard, or "
        f"the record belongs to another one. Delete the record, or copy it again with its shard."
    )


def check_sound(shards: Sequence[VerifiedShard]) -> None:
    """Check that no shard has a problem; raises ShardError with all problems."""
    problems = [problem for shard in shards for problem in shard.problems]
    if problems:
        num_bad = sum(bool(shard.problems) for shard in shards)
        verb = "is" if len(shards) == 1 else "are"
        raise ShardError(*problems, f"{num_bad:,} of {counted(len(shards), 'shard')} {verb} bad")


def verify_table(shards: Iterable[VerifiedShard]) -> Table:
    """A row for each shard."""
    keys = "documents", "documents_with_eod", "tokens", "largest_id"
    headings = "shard", "documents", "end in EOD", "tokens", "largest id", "checksums", "result"
    rows = (
        [
            str(shard.prefix),
            *(shard.json()[key] for key in keys),
            "none" if shard.entry is None else "listed",
            f"{len(shard.problems)} wrong" if shard.problems else "good",
        ]
        for shard in shards
    )
    return filled_table(headings, rows)


def verify_notes(shards: Sequence[VerifiedShard]) -> Iterator[str]:
    """What is not a fault but worth knowing about the shards."""
    for shard in shards:
        yield from shard.notes
    summaries = [shard.tokens for shard in shards if shard.tokens is not None]
    with_empty = [tokens for tokens in summaries if tokens.num_empty]
    if with_empty:
        yield (
            f"empty documents: {sum(tokens.num_empty for tokens in with_empty):,}, in shards: "
            f"{len(with_empty):,}. They are sound: Megatron-LM's tools write an empty text as a "
            f"document without tokens and without EOD."
        )
    yield from text_notes(
        sum(tokens.num_documents for tokens in summaries),
        num_unknown=sum(tokens.num_unknown for tokens in summaries),
        num_eod_only=sum(tokens.num_eod_only for tokens in summaries),
    )
    yield from _eod_notes(shards)
    yield from _comparison_notes([s.comparison for s in shards if s.comparison is not None])
    yield from _begin_notes(summaries)
    num_recorded = sum(shard.is_recorded for shard in shards)
    if num_recorded:
        yield (
            f"document ends recorded: {num_recorded:,} of {len(shards):,} shards have "
            f"PREFIX{ENDS_SUFFIX}. A run reads it instead of the documents while both files of "
            f"the shard stay unchanged."
        )


def _eod_notes(shards: Sequence[VerifiedShard]) -> Iterator[str]:
    """Where EOD was taken from if it was not given, and where it is unknown."""
    read = [(s.tokens.eod_id, s.has_recorded_eod) for s in shards if s.tokens is not None]
    for eod_id, count in Counter(eod_id for eod_id, is_recorded in read if is_recorded).items():
        yield f"EOD is token {eod_id} by the records beside the shards (shards: {count:,})"
    unknown = sum(eod_id is None for eod_id, _ in read)
    if unknown:
        yield (
            f"no EOD is known (shards: {unknown:,}): how their documents end was not checked. Name "
            f"the token with --eod-id."
        )


def _comparison_notes(compared: Sequence[Comparison]) -> Iterator[str]:
    if compared:
        yield (
            f"documents encoded again: {sum(c.documents for c in compared):,}, with other ids "
            f"than their text: {sum(len(c.differing) for c in compared):,}, with a text that "
            f"cannot be recovered exactly: {sum(c.unjudged for c in compared):,}"
        )
    blank = sum(c.documents == c.unjudged > 0 for c in compared)
    if blank:
        yield (
            f"shards of which no document could be compared with the tokenizer: {blank:,}. Whether "
            f"it gives their ids is not known: no text can be recovered exactly from them."
        )


def _begin_notes(summaries: Iterable[TokenSummary]) -> Iterator[str]:
    """The token that most documents begin with, where there is one."""
    begins: dict[tuple[int, bool], list[TokenSummary]] = {}
    for tokens in summaries:
        if tokens.first_token is not None and tokens.num_begin > tokens.num_filled // 2 > 0:
            is_eod = tokens.first_token == tokens.eod_id
            begins.setdefault((tokens.first_token, is_eod), []).append(tokens)
    for (token, is_eod), alike in sorted(begins.items()):
        counts = f"{sum(t.num_begin for t in alike):,} of {sum(t.num_filled for t in alike):,}"
        ends = f", {sum(t.num_eod for t in alike):,} end in EOD"
        yield (
            f"{counts} documents begin with token {token}"
            + (ends if alike[0].eod_id is not None else "")
            + f" (shards: {len(alike):,})"
            + (f". {_BOS_IS_EOD}" if is_eod else "")
        )


_BOS_IS_EOD = (
    "BOS and EOD are one token: where a document starts with it, positions and masks take it as "
    "part of that document, not as the end of the one before."
)
