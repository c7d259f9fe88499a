"""The report of ``blendtitan verify``: comparison of tokenizers, a table and notes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from blendtitan.errors import ShardError
from blendtitan.identity import TokenizerIdentity
from blendtitan.shards.encoding import Comparison
from blendtitan.shards.tokens import TokenSummary, text_notes
from blendtitan.shards.verify import VerifiedShard
from blendtitan.storage.list_forms import named_shards
from blendtitan.storage.records import ENDS_SUFFIX
from blendtitan.storage.writer import DOCS_SUFFIX
from blendtitan.tables import Table
from blendtitan.tokenizer_check.run import MadeShard, check_shards
from blendtitan.tokenizers import Tokenizer
from blendtitan.visible import counted

_BOS_IS_EOD = (
    "BOS and EOD are one token: where a document starts with it, positions and masks treat it as "
    "part of that document, not as the end of the previous one."
)


_BEGINS = "This needs no change: it is the tokenizer's BOS, or many texts begin alike."


def verify_tokenizers(
    inputs: Sequence[Path],
    shards: Sequence[VerifiedShard],
    tokenizer: Tokenizer | None,
    *,
    eod_id: int | None,
) -> None:
    """Add to verified shards the problems with the tokenizer that made them.

    Args:
        inputs: Prefixes, folders of shards and file lists. Each folder or list should be of one
            tokenizer, and so should the prefixes together.
        shards: All of their shards.
        tokenizer: The expected tokenizer. None: any.
        eod_id: Token that should end their documents; None: not compared.
    """
    of_prefix = {shard.prefix: shard for shard in shards}
    groups: dict[Path | None, list[VerifiedShard]] = {}
    for path in inputs:
        members = [shard.prefix for shard in named_shards([path])]
        group = groups.setdefault(None if members == [path] else path, [])
        group += [of_prefix[prefix] for prefix in members if of_prefix[prefix].tokenizer]
    for group in groups.values():
        for shard, first in _others(group):
            shard.problems.append(
                f"{shard.prefix}: made with {shard.tokenizer}, while {first.prefix} was made with "
                f"{first.tokenizer}. Shards that are read together need one tokenizer: tokenise "
                f"them again with it, or use them in separate runs."
            )
    if tokenizer is not None:
        _compare(shards, tokenizer, eod_id)


def _others(shards: Sequence[VerifiedShard]) -> Iterator[tuple[VerifiedShard, VerifiedShard]]:
    """Shards of a minority tokenizer, each with the first shard of the majority."""
    alike: list[tuple[TokenizerIdentity, list[VerifiedShard]]] = []
    for shard in shards:
        assert shard.tokenizer is not None
        same = next((of for own, of in alike if own.is_same(shard.tokenizer)), None)
        if same is None:
            alike.append((shard.tokenizer, [shard]))
        else:
            same.append(shard)
    most = max((members for _, members in alike), key=len, default=[])
    for _, members in alike:
        if members is not most:
            yield from ((shard, most[0]) for shard in members)


def _compare(shards: Sequence[VerifiedShard], tokenizer: Tokenizer, eod_id: int | None) -> None:
    """Compare records with a tokenizer, and a sample of the tokens of shards without one."""
    usable = {str(shard.prefix): shard for shard in shards if shard.tokens is not None}
    made = [
        MadeShard(prefix, shard.corpus, shard.index.num_documents, shard.index.num_tokens)
        for prefix, shard in usable.items()
        if shard.index is not None
    ]
    try:
        findings = check_shards(made, tokenizer, eod_id=eod_id)
    except ShardError as error:
        # Each shard was readable before, so a shard has just been changed.
        for shard in usable.values():
            shard.problems.append(f"the tokenizer could not be compared: {error}")
        return
    for prefix, reason in findings.mismatches.items():
        usable[prefix].problems.append(
            f"{prefix}: {reason}; compared with {findings.tokenizer}. Name the tokenizer that made "
            f"the shard, or tokenise it again."
        )
    for prefix, reason in findings.unclear.items():
        usable[prefix].notes.append(
            f"{prefix}: cannot determine whether this tokenizer made it ({reason})"
        )


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
    return Table(headings, rows)


def verify_notes(shards: Sequence[VerifiedShard]) -> Iterator[str]:
    """Notes about the shards that are not problems."""
    for shard in shards:
        yield from shard.notes
    summaries = [shard.tokens for shard in shards if shard.tokens is not None]
    with_empty = [tokens for tokens in summaries if tokens.num_empty]
    if with_empty:
        yield (
            f"empty documents: {sum(tokens.num_empty for tokens in with_empty):,}, in shards: "
            f"{len(with_empty):,}. They are valid: Megatron-LM's tools write an empty text as a "
            f"document without tokens and without EOD."
        )
    yield from text_notes(
        sum(tokens.num_documents for tokens in summaries),
        num_unknown=sum(tokens.num_unknown for tokens in summaries),
        num_eod_only=sum(tokens.num_eod_only for tokens in summaries),
    )
    recorded = [s.tokens.eod_id for s in shards if s.tokens is not None and s.has_recorded_eod]
    for eod_id, count in Counter(recorded).items():
        yield f"EOD is token {eod_id} by the records beside the shards (shards: {count:,})"
    unknown = sum(tokens.eod_id is None for tokens in summaries)
    if unknown:
        yield (
            f"no EOD is known (shards: {unknown:,}): how their documents end was not checked. Name "
            f"the token with --eod-id."
        )
    yield from _comparison_notes([s.comparison for s in shards if s.comparison is not None])
    yield from _begin_notes(shards)
    num_recorded = sum(shard.is_recorded for shard in shards)
    if num_recorded:
        yield (
            f"document ends recorded: {num_recorded:,} of {len(shards):,} shards have "
            f"PREFIX{ENDS_SUFFIX}. A run reads it instead of the documents as long as both files "
            f"of the shard stay unchanged."
        )
    yield from source_notes([shard.kept_fields for shard in shards])


def source_notes(shards: Sequence[tuple[str, ...] | None]) -> Iterator[str]:
    """A sentence about shards that record the sources of their documents, if any.

    ``shards`` are the recorded fields of each; None: the sources are not recorded.
    """
    recorded = [fields for fields in shards if fields is not None]
    if recorded:
        keep = dict.fromkeys(name for fields in recorded for name in fields)
        kept = f", with {', '.join(keep)}" if keep else ""
        yield (
            f"sources of documents recorded: {len(recorded):,} of {counted(len(shards), 'shard')} "
            f"have PREFIX{DOCS_SUFFIX}{kept}"
        )


def _comparison_notes(compared: Sequence[Comparison]) -> Iterator[str]:
    if compared:
        yield (
            f"{sum(c.documents for c in compared):,} documents encoded again: "
            f"{sum(len(c.differing) for c in compared):,} with different ids, "
            f"{sum(c.unjudged for c in compared):,} whose text cannot be recovered exactly"
        )
    blank = sum(c.documents == c.unjudged > 0 for c in compared)
    if blank:
        yield (
            f"shards that could not be compared with the tokenizer: {blank:,}. No text of their "
            f"documents can be recovered exactly."
        )


def _begin_notes(shards: Iterable[VerifiedShard]) -> Iterator[str]:
    """The token that most documents begin with, if there is one."""
    begins: dict[tuple[int, bool], list[TokenSummary]] = {}
    first: dict[tuple[int, bool], Path] = {}
    for shard in shards:
        tokens = shard.tokens
        if tokens is None or tokens.first_token is None:
            continue
        if tokens.num_begin > tokens.num_filled // 2 > 0:
            is_eod = tokens.first_token == tokens.eod_id
            begins.setdefault((tokens.first_token, is_eod), []).append(tokens)
            first.setdefault((tokens.first_token, is_eod), shard.prefix)
    for (token, is_eod), alike in sorted(begins.items()):
        counts = f"{sum(t.num_begin for t in alike):,} of {sum(t.num_filled for t in alike):,}"
        ends = f", {sum(t.num_eod for t in alike):,} end in EOD"
        yield (
            f"{counts} documents begin with token {token}"
            + (ends if alike[0].eod_id is not None else "")
            + f" (shards: {len(alike):,}, the first is {first[token, is_eod]}). "
            + (_BOS_IS_EOD if is_eod else _BEGINS)
        )
