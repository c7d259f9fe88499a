"""The results in one small table, which the README shows too."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from results import Results
from series import NAMES, Rounds, number, ratio, rounds_of, use_of

HEADER = (
    "| | M tokens/s | of the limit | cold start, s | warm start, s | memory, MiB | open files |"
)
ROWS = (
    ("limit two", "floor"),
    ("ours", "ours"),
    (None, "ours kept"),
    ("megatron", "megatron"),
    (None, "megatron fast"),
    ("olmo", "olmo"),
    ("lit", None),
    ("mosaic", None),
    ("titan", None),
)
"""Use of an engine in reading, and in start-up."""

LIMITS = "limit, floor"


def summary(results: Results) -> Iterator[str]:
    """Medians: reading ``one`` in batches of 8 x 4096; a start with the files of ``many``."""
    speeds = results["reading"][1] if "reading" in results else []
    starts = results["startup"][1] if "startup" in results else []
    reading = {"source": "one", "batch": 8}
    limit = rounds_of(speeds, "limit two", "tokens_per_s", **reading)
    measured = {use_of(result) for result in [*speeds, *starts]}
    yield HEADER
    yield "|---|---|---|---|---|---|---|"
    for reader, starter in ROWS:
        if not {reader, starter} & measured:
            continue
        speed = rounds_of(speeds, reader or "", "tokens_per_s", **reading)
        cells = [_median(speed, 1e-6), number(ratio(speed, limit))]
        for figure, cold in (("start_s", True), ("start_s", False), *_PER_RANK):
            found = rounds_of(starts, starter or "", figure, source="many", cold=cold)
            cells.append(_median(found))
        name = LIMITS if starter == "floor" else NAMES[starter or reader or ""]
        yield f"| {name} | {' | '.join(cells)} |"


def replace_table(page: Path, results: Results) -> None:
    """Put the table in the place of the one that a page has."""
    lines = page.read_text().splitlines()
    start = lines.index(HEADER)
    stop = next(at for at, line in enumerate(lines) if at > start and not line.startswith("|"))
    page.write_text("\n".join([*lines[:start], *summary(results), *lines[stop:]]) + "\n")


_PER_RANK = (("memory_mib", False), ("files", False))


def _median(rounds: Rounds, scale: float = 1.0) -> str:
    return number(median(rounds.values()) * scale) if rounds else ""
