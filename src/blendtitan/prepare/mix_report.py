"""What ``blendtitan mix`` shows."""

from collections.abc import Iterable

from blendtitan.prepare.mix import CorpusMix, epochs_at
from blendtitan.tables import Table, number_table


def mix_table(corpora: Iterable[CorpusMix], *, horizon_tokens: float | None = None) -> Table:
    """Tokens, epochs and share of each corpus, for one pass over the blend or up to a horizon."""
    rows = list(corpora)
    pass_tokens = sum(row.weight for row in rows)
    read = horizon_tokens or pass_tokens
    table = number_table("corpus", "shards", "tokens", "epochs", "tokens read", "share")
    for row, epochs in zip(rows, epochs_at(rows, read), strict=True):
        share = row.weight / pass_tokens
        table.add_row(
            *(row.corpus, f"{row.num_shards:,}", f"{row.num_tokens:,}", f"{epochs:g}"),
            *(f"{share * read:,.0f}", f"{share:.2%}"),
        )
    table.add_section()
    num_shards = sum(row.num_shards for row in rows)
    num_tokens = sum(row.num_tokens for row in rows)
    table.add_row("total", f"{num_shards:,}", f"{num_tokens:,}", "", f"{read:,.0f}", "100.00%")
    return table
