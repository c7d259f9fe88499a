"""The plan of a run as tables and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from blendtitan.runs.plan import CorpusPlan, RunPlan
from blendtitan.tables import Table, number_table

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def plan_headline(plan: RunPlan) -> str:
    """The run in one line."""
    run = plan.run
    tokens = run.num_samples * run.blend.seq_length
    read = sum(corpus.bytes_read for corpus in plan.corpora)
    return (
        f"{run.steps:,} steps of {run.global_batch_size:,} samples of {run.blend.seq_length:,} "
        f"tokens: {run.num_samples:,} samples, {tokens:,} tokens, {_size(read)} to read. All "
        f"windows once are {plan.steps_per_epoch:,.1f} steps."
    )


def plan_tables(plan: RunPlan) -> Iterator[Table]:
    """The corpora, then the segments if there are several, then the splits."""
    yield _corpus_table(plan)
    if len(plan.segments) > 1:
        yield _segment_table(plan)
    yield _split_table(plan)


def plan_json(plan: RunPlan) -> dict[str, Any]:
    """The same for programs."""
    run = plan.run
    names = [corpus.name for corpus in plan.corpora]
    return {
        "config": str(run.path),
        "steps": run.steps,
        "global_batch_size": run.global_batch_size,
        "seq_length": run.blend.seq_length,
        "samples": run.num_samples,
        "tokens": run.num_samples * run.blend.seq_length,
        "bytes_read": sum(corpus.bytes_read for corpus in plan.corpora),
        "steps_per_epoch": plan.steps_per_epoch,
        "corpora": [asdict(corpus) for corpus in plan.corpora],
        "segments": [
            asdict(segment)
            | {
                "shares": dict(zip(names, segment.shares, strict=True)),
                "epochs": dict(zip(names, segment.epochs, strict=True)),
            }
            for segment in plan.segments
        ],
        "splits": [asdict(split) for split in plan.splits],
        "warnings": list(plan.warnings),
    }


def _corpus_table(plan: RunPlan) -> Table:
    table = number_table(
        *("corpus", "shards", "documents", "tokens", "share"),
        *("tokens read", "epochs", "steps/epoch", "unused", "to read"),
    )
    for corpus in plan.corpora:
        table.add_row(corpus.name, *_cells(corpus))
    return table


def _cells(corpus: CorpusPlan) -> list[str]:
    steps, unused = corpus.steps_per_epoch, corpus.tokens_unused
    return [
        *(f"{count:,}" for count in (corpus.shards, corpus.documents, corpus.tokens)),
        *(f"{corpus.share:.2%}", f"{corpus.tokens_read:,}", f"{corpus.epochs:.3g}"),
        "" if steps is None else f"{steps:,.1f}",
        "" if unused is None else f"{unused:,}",
        _size(corpus.bytes_read),
    ]


def _segment_table(plan: RunPlan) -> Table:
    headings = [
        heading
        for segment in plan.segments
        for heading in (f"after step {segment.steps_before:,.6g}", "epochs at its end")
    ]
    table = number_table("corpus", *headings)
    for i, corpus in enumerate(plan.corpora):
        cells = (
            cell
            for segment in plan.segments
            for cell in (f"{segment.shares[i]:.2%}", f"{segment.epochs[i]:.3g}")
        )
        table.add_row(corpus.name, *cells)
    return table


def _split_table(plan: RunPlan) -> Table:
    table = number_table("split", "corpora", "documents", "tokens", "samples")
    for split in plan.splits:
        counts = (split.corpora, split.documents, split.tokens, split.windows)
        table.add_row(split.name, *(f"{count:,}" for count in counts))
    return table


def _size(num_bytes: int) -> str:
    """A number of bytes with three digits and a unit."""
    size, unit = float(num_bytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
