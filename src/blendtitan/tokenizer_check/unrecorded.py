"""Compare the tokens of shards whose records say nothing about the tokenizer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from blendtitan.storage.record_files import TokenizerRecord
from blendtitan.tokenizer_check.fit import Fit, ProbedShard, Verdict, probe
from blendtitan.tokenizers import Tokenizer

if TYPE_CHECKING:
    from blendtitan.tokenizer_check.run import Findings, MadeShard

_Unknown = Mapping[str, TokenizerRecord | None]


def probe_tokens(
    shards: "Sequence[MadeShard]",
    unknown: _Unknown,
    findings: "Findings",
    tokenizer: Tokenizer,
    *,
    eod_id: int | None,
) -> None:
    """Compare the tokens of shards without a valid record, and add the findings."""
    corpus_of = {s.prefix: s.corpus for s in shards if s.prefix in unknown}
    probed = probe(corpus_of, tokenizer, eod_id=eod_id)
    verdicts = _verdicts(probed, unknown)
    findings.num_skipped = len(unknown) - len(verdicts)
    for verdict, reasons in (
        (Verdict.MISMATCH, findings.mismatches),
        (Verdict.UNCLEAR, findings.unclear),
    ):
        totals: dict[tuple[str, str] | None, Fit] = {}
        for shard in probed:
            if shard.verdict is verdict:
                ids = _ids(unknown[shard.prefix])
                totals[ids] = totals.get(ids, Fit()) + shard.fit
        found = [prefix for prefix in unknown if verdicts.get(prefix) is verdict]
        partial = {_ids(unknown[prefix]) for prefix in {*found} - {s.prefix for s in probed}}
        for prefix in found:
            ids = _ids(unknown[prefix])
            extent = "probed in part" if ids in partial else "probed"
            reasons[prefix] = f"{_made_with(unknown[prefix])}, {extent}: {totals[ids]}"


def _verdicts(probed: Sequence[ProbedShard], unknown: _Unknown) -> dict[str, Verdict]:
    """The verdict on each probed shard, and on those that the same tokenizer made by record.

    If a tokenizer is proven to be another, so are its other shards. If tokens of some of them
    match, it is not: then the records, or the tokens, of single shards are wrong.
    """
    verdicts = {shard.prefix: shard.verdict for shard in probed}
    made = {
        verdict: {_ids(unknown[s.prefix]) for s in probed if s.verdict is verdict}
        for verdict in Verdict
    }
    proven = made[Verdict.MISMATCH] - made[Verdict.MATCH] - {None}
    return verdicts | {
        prefix: Verdict.MISMATCH for prefix, record in unknown.items() if _ids(record) in proven
    }


def _ids(record: TokenizerRecord | None) -> tuple[str, str] | None:
    """Equal for records whose tokenizers give every text the same ids."""
    return None if record is None else (record.tokenizer.kind, record.tokenizer.hash)


def _made_with(record: TokenizerRecord | None) -> str:
    return "without a record" if record is None else f"made with {record.tokenizer}"
