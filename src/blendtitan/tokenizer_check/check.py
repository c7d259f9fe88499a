"""Comparing the tokenizer of a run with those that made its shards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from blendtitan.files import io_map
from blendtitan.identity import TokenizerIdentity
from blendtitan.storage.record_files import TokenizerRecord, read_record
from blendtitan.tokenizer_check.fit import Fit, Verdict
from blendtitan.tokenizer_check.probe import probe
from blendtitan.tokenizers import Tokenizer, identity_of
from blendtitan.visible import visible

_SHOWN = 3
"""Shards and corpora that a message names; of the others it gives the number."""


class MadeShard(NamedTuple):
    """A shard, as far as it is needed to believe its record."""

    prefix: str
    corpus: str
    documents: int
    tokens: int


@dataclass(slots=True)
class Findings:
    """How shards and a tokenizer go together."""

    tokenizer: str = ""
    """The tokenizer that they were compared with, for people, if there are mismatches."""

    mismatches: dict[str, str] = field(default_factory=dict)
    """Why a shard was made with another tokenizer, by prefix."""

    unclear: dict[str, str] = field(default_factory=dict)
    """Why it is not known whether a shard was, by prefix."""

    def mismatch_lines(self, corpus_of: Mapping[str, str]) -> Iterator[str]:
        """The mismatches in words, shards with the same reason in one line."""
        yield from _lines(self.mismatches, corpus_of)

    def unclear_lines(self, corpus_of: Mapping[str, str]) -> Iterator[str]:
        """What is not known in words, shards with the same reason in one line."""
        yield from _lines(self.unclear, corpus_of)


def check_shards(
    shards: Sequence[MadeShard], tokenizer: Tokenizer, *, eod_id: int | None
) -> Findings:
    """Compare the records of shards with a tokenizer, and tokens of those without a record.

    Args:
        shards: Any number. Each record is read; of the tokens, a bounded sample.
        tokenizer: What they should have been made with.
        eod_id: Token that should end their documents; None: not compared.

    Raises:
        ShardError: A record, or a shard that is probed, cannot be read.
    """
    records = io_map(read_record, [shard.prefix for shard in shards])
    believed = [
        record if record and record.describes(documents=s.documents, tokens=s.tokens) else None
        for s, record in zip(shards, records, strict=True)
    ]
    # Hashing a large tokenizer.json takes a good part of a second: only where it is needed.
    own = identity_of(tokenizer, eod_id) if any(believed) else None
    findings = Findings()
    unknown: dict[str, TokenizerRecord | None] = {}
    for shard, record in zip(shards, believed, strict=True):
        if record is None or own is None or not record.tokenizer.can_be_compared(own):
            unknown[shard.prefix] = record
        elif reason := _difference(record.tokenizer, own):
            findings.mismatches[shard.prefix] = reason
    corpus_of = {shard.prefix: shard.corpus for shard in shards if shard.prefix in unknown}
    _probe(findings, unknown, corpus_of, tokenizer, eod_id)
    if findings.mismatches:
        own = own or identity_of(tokenizer, eod_id)
        findings.tokenizer = visible(f"{own}, from {tokenizer.path}")
    return findings


def _difference(found: TokenizerIdentity, own: TokenizerIdentity) -> str | None:
    if not found.gives_ids_of(own):
        return f"made with {found}"
    if own.eod_id is not None and found.eod_id not in (None, own.eod_id):
        return f"made with the same tokenizer, but documents end in EOD {found.eod_id}"
    return None


def _probe(
    findings: Findings,
    unknown: Mapping[str, TokenizerRecord | None],
    corpus_of: Mapping[str, str],
    tokenizer: Tokenizer,
    eod_id: int | None,
) -> None:
    """Add what a sample of the tokens of shards without a comparable record says."""
    probed = probe(corpus_of, tokenizer, eod_id=eod_id)
    for verdict, reasons in (
        (Verdict.MISMATCH, findings.mismatches),
        (Verdict.UNCLEAR, findings.unclear),
    ):
        totals: dict[str, Fit] = {}
        alike = [(s, _made_with(unknown[s.prefix])) for s in probed if s.verdict is verdict]
        for shard, made_with in alike:
            totals[made_with] = totals.get(made_with, Fit()) + shard.fit
        for shard, made_with in alike:
            reasons[shard.prefix] = f"{made_with}: {totals[made_with]}"


def _made_with(record: TokenizerRecord | None) -> str:
    return "without a record, probed" if record is None else f"made with {record.tokenizer}, probed"


def _lines(reasons: Mapping[str, str], corpus_of: Mapping[str, str]) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for prefix, reason in reasons.items():
        by_reason.setdefault(reason, []).append(prefix)
    for reason, prefixes in by_reason.items():
        corpora = dict.fromkeys(repr(corpus_of[prefix]) for prefix in prefixes)
        kind = "corpus" if len(corpora) == 1 else "corpora"
        yield f"{visible(_some(prefixes))} ({kind} {_some(list(corpora))}): {reason}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
