"""What ``blendtitan merge`` shows."""

from collections.abc import Iterable

from blendtitan.prepare.merge_plan import MergedShard
from blendtitan.tables import Table, number_table


def merge_table(shards: Iterable[MergedShard]) -> Table:
    """A row for each new shard."""
    table = number_table("shard", "made of", "documents", "tokens")
    for shard in shards:
        counts = len(shard.sources), shard.header.num_documents, shard.num_tokens
        table.add_row(str(shard.prefix), *(f"{count:,}" for count in counts))
    return table
