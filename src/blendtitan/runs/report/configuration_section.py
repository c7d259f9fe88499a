"""The configurations of a report's runs: what differs, and every key."""

from collections.abc import Iterator, Mapping, Sequence

from blendtitan.runs.report.blocks import Block, Cell, Folded, table
from blendtitan.runs.report.facts import RunFacts


def configuration_blocks(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """The keys that differ, then all keys of each run."""
    if len(runs) > 1:
        yield from _differences(runs)
    for run in runs:
        keys = table(
            f"Every key of {run.run.path}",
            ["key", "value"],
            ([Cell(key), Cell(value)] for key, value in run.settings.items()),
        )
        yield Folded(f"{run.name}: {len(run.settings):,} keys", (keys,))


def _differences(runs: Sequence[RunFacts]) -> Iterator[Block]:
    keys = sorted({key for run in runs for key in run.settings})
    found = {key: [run.settings.get(key) for run in runs] for key in keys}
    differ = {k: v for k, v in found.items() if None not in v and len(set(v)) > 1}
    partly = {k: v for k, v in found.items() if None in v}
    yield _values_table("Keys that differ", runs, differ)
    if partly:
        caption = "Keys that not every file has; the others have a default"
        values = _values_table(caption, runs, partly)
        yield Folded(f"{len(partly):,} keys that not every file has", (values,))


def _values_table(
    caption: str, runs: Sequence[RunFacts], values: Mapping[str, Sequence[str | None]]
) -> Block:
    rows = ([Cell(key), *(Cell(each or "") for each in own)] for key, own in values.items())
    return table(caption, ["key", *(run.name for run in runs)], rows)
