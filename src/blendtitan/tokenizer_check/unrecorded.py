"""Compare the tokens of shards whose records say nothing about the tokenizer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from blendtitan.storage.record_files import TokenizerRecord
from blendtitan.tokenizer_check.fit import Fit, Verdict, probe
from blendtitan.tokenizers import Tokenizer

if TYPE_CHECKING:
    from blendtitan.tokenizer_check.run import Findings, MadeShard


def probe_tokens(
    shards: "Sequence[MadeShard]",
    unknown: Mapping[str, TokenizerRecord | None],
    findings: "Findings",
    tokenizer: Tokenizer,
    *,
    eod_id: int | None,
) -> None:
    """Compare the tokens of shards without a valid record, and add the findings."""
    corpus_of = {s.prefix: s.corpus for s in shards if s.prefix in unknown}
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
