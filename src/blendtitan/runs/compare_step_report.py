"""A step against those before it, as text and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from blendtitan.runs.compare_step import Comparison, Lens
from blendtitan.tables import Table, as_text, number_table
from blendtitan.visible import joined

_MOST_TWINS = 10


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Sections of text, for people."""
    yield (
        f"Step {found.step:,} against the steps before it, {found.first_before:,} to "
        f"{found.step - 1:,}."
    )
    yield _corpus_text(found)
    yield _twins_text(found)
    yield joined(["The most repetitive samples of the step:", as_text(_sample_table(found))])
    yield joined(
        ["Tokens that tell the step most from those before:", as_text(_token_table(found))]
    )


def comparison_json(found: Comparison) -> dict[str, Any]:
    """The same for programs."""
    return asdict(found) | {
        "twins": [{"slot": slot, "same_as": earlier} for earlier, slot in found.twins]
    }


def _corpus_text(found: Comparison) -> str:
    table = number_table(
        *("corpus", "samples", "share", "before"),
        *("document lengths: median", "p90", "longest", "per sample"),
        *("before: median", "p90", "longest", "per sample"),
    )
    for corpus in found.corpora:
        table.add_row(
            *(corpus.name, f"{corpus.samples:,}"),
            *(f"{corpus.share:.1%}", f"{corpus.share_before:.1%}"),
            *_lens_cells(corpus.lens),
            *_lens_cells(corpus.lens_before),
        )
    return as_text(table)


def _lens_cells(lens: Lens | None) -> list[str]:
    if lens is None:
        return ["", "", "", ""]
    tokens = (lens.median, lens.p90, lens.longest)
    return [*(f"{count:,}" for count in tokens), f"{lens.per_sample:.3g}"]


def _twins_text(found: Comparison) -> str:
    if not found.twins:
        return "No sample holds the same tokens as another one of these steps."
    lines = [
        f"  slot {slot:,} is the same as slot {earlier:,}"
        for earlier, slot in found.twins[:_MOST_TWINS]
    ]
    more = len(found.twins) - len(lines)
    head = f"{len(found.twins):,} samples hold the same tokens as an earlier one of these steps:"
    return joined([head, *lines, *([f"  and {more:,} more"] if more else [])])


def _sample_table(found: Comparison) -> Table:
    table = number_table("slot", "corpus", "different tokens", "most frequent", "its share")
    for sample in found.samples:
        shown = f"{sample.token} {_quoted(sample.text)}"
        shares = (f"{sample.distinct:.1%}", shown, f"{sample.token_share:.1%}")
        table.add_row(f"{sample.slot:,}", sample.corpus, *shares)
    return table


def _token_table(found: Comparison) -> Table:
    table = number_table("token", "text", "in the step", "per million", "before")
    for token in found.tokens:
        table.add_row(
            *(f"{token.token}", _quoted(token.text), f"{token.count:,}"),
            *(f"{token.per_million:,.1f}", f"{token.per_million_before:,.1f}"),
        )
    return table


def _quoted(text: str | None) -> str:
    return "" if text is None else json.dumps(text, ensure_ascii=False)
