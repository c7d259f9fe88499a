"""The figures that this project promises, compared with what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from plan import PREFETCHES, SHAPES, SLOTS
from results import Results
from series import Rounds, chosen, rounds_of

OF_LIMIT = 0.8
NEVER_SLOWER = 0.95
"""What more prefetch must reach of less: rounds differ by a few percent."""

WAIT_US = 100.0
FIRST_BATCH_MS = 20.0
MEMORY_MIB = 8.0
DEFAULT_PREFETCH = 2


@dataclass(frozen=True)
class Target:
    """One line: a figure, what it may be, and whether it is."""

    what: str
    found: float
    allowed: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it is; what was not measured is not."""
        return self.found >= self.allowed if self.at_least else self.found <= self.allowed


def all_targets(results: Results) -> Iterator[Target]:
    """The targets of the sections that were measured."""
    sections = {
        "reading": _reading, "prefetch": _prefetch, "blending": _blending, "files": _files
    }  # fmt: skip
    for name, targets in sections.items():
        if name in results:
            yield from targets(results[name][1])
    if "startup" in results:
        yield from _startup(*results["startup"])


def _reading(rows: list) -> Iterator[Target]:
    for source in ("one", "many"):
        for batch, seq_len in SHAPES:
            case = {"source": source, "batch": batch, "seq_len": seq_len}
            if not chosen(rows, **case):
                continue
            ours = rounds_of(rows, "ours", "tokens_per_s", **case)
            limit = rounds_of(rows, "limit two", "tokens_per_s", **case)
            what = f"reading `{source}`, {batch} x {seq_len}, of the limit"
            yield Target(what, _median(_over(ours, limit)), OF_LIMIT, at_least=True)


def _prefetch(rows: list) -> Iterator[Target]:
    speeds = [_median(rounds_of(rows, "ours", "tokens_per_s", prefetch=p)) for p in PREFETCHES]
    worst = min(speed / max(speeds[:at]) for at, speed in enumerate(speeds) if at)
    yield Target("more prefetch, of the speed with less, at worst", worst, NEVER_SLOWER, True)
    waits = rounds_of(rows, "ours", "wait_us", prefetch=DEFAULT_PREFETCH)
    yield Target("median wait for a batch that was read ahead, us", _median(waits), WAIT_US)


def _blending(rows: list) -> Iterator[Target]:
    for slot in SLOTS:
        first = rounds_of(rows, "ours kept", "first_batch_ms", first_sample=slot)
        yield Target(f"first batch at slot {slot:,}, ms", _median(first), FIRST_BATCH_MS)


def _files(rows: list) -> Iterator[Target]:
    (row,) = chosen(rows, engine="ours", max_files=256)
    yield Target("starts at 256 open files", float("error" not in row), 1.0, at_least=True)


def _startup(about: dict[str, Any], rows: list) -> Iterator[Target]:
    for source in dict.fromkeys(row["source"] for row in rows):
        shards = about["sources"][source]["shards"]
        for cold in (True, False):
            case = {"source": source, "cold": cold}
            how = "cold" if cold else "warm"
            floor = rounds_of(rows, "floor", "start_s", **case)
            ours = rounds_of(rows, "ours", "start_s", **case)
            allowed = {round_id: 4 * seconds + 0.02 for round_id, seconds in floor.items()}
            what = f"start-up, `{source}`, {how}, catalog built, of 4 x floor + 20 ms"
            yield Target(what, _median(_over(ours, allowed)), 1.0)
            kept = rounds_of(rows, "ours kept", "start_s", **case)
            what = f"start-up, `{source}`, {how}, catalog kept, ms"
            yield Target(what, 1e3 * _median(kept), 20 + 0.01 * shards)
    warm = {"source": "many", "cold": False}
    for use in ("ours", "ours kept"):
        memory = rounds_of(rows, use, "memory_mib", **warm)
        yield Target(f"memory above imports, {use}, MiB", _median(memory), MEMORY_MIB)
    yield Target("maps of files", _median(rounds_of(rows, "ours", "maps", **warm)), 0)


def _over(of: Rounds, to: Rounds) -> Rounds:
    return {round_id: of[round_id] / to[round_id] for round_id in of if round_id in to}


def _median(rounds: Rounds) -> float:
    return median(rounds.values()) if rounds else float("nan")
