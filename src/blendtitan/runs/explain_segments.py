"""The segments of a run: ``blendtitan explain RUN --segments``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from blendtitan.batch_schedule import step_of
from blendtitan.errors import ConfigError
from blendtitan.history.skips import SkippedStretch, saved_skips
from blendtitan.order.blend import shares_of
from blendtitan.runs.open import OpenRun
from blendtitan.runs.slots import Slots
from blendtitan.tables import Table


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """The segments of a run, for display."""

    segments: list[dict[str, Any]]
    skipped: tuple[SkippedStretch, ...]

    @classmethod
    def of_run(cls, run: OpenRun) -> Self:
        """The segments of a run, with the shards that each phase reads.

        Raises:
            ConfigError: The run is in the original's order.
        """
        slots = run.slots
        if not slots.phases:
            raise ConfigError(
                "the original's order has one blend for the whole run, and no segments. Name a step"
            )
        found: list[dict[str, Any]] = []
        for segment in slots.segments:
            begun = [phase for phase in slots.phases if phase.first_slot <= segment.first_slot]
            first_step = _first_step(slots, segment.first_slot)
            found.append(
                {
                    "first_slot": segment.first_slot,
                    "first_step": first_step,
                    "chapter": len(begun) - 1,
                    "seq_length": begun[-1].seq_len,
                    "shares": shares_of(segment.weights),
                    "shards": {
                        name: dict(zip(shards.names, shards.tokens, strict=True))
                        for name, shards in begun[-1].corpora.items()
                    },
                }
            )
        return cls(found, slots.skipped)

    def json(self) -> dict[str, Any]:
        """The segments as JSON."""
        skipped = saved_skips(self.skipped)
        return {"segments": self.segments} | ({"skipped": skipped} if skipped else {})

    def lines(self) -> Iterator[str | Table]:
        """One row for each segment: its start, and the share of each corpus; skipped slots."""
        corpora = sorted({name for segment in self.segments for name in segment["shares"]})
        yield Table(
            ["from slot", "from step", "phase", "seq_length", *corpora],
            (
                [
                    f"{segment['first_slot']:,}",
                    *(segment[key] for key in ("first_step", "chapter", "seq_length")),
                    *(f"{segment['shares'].get(name, 0):.2%}" for name in corpora),
                ]
                for segment in self.segments
            ),
        )
        if self.skipped:
            yield from ("", "Skipped:", *(f"  {each}" for each in self.skipped))


def _first_step(slots: Slots, slot: int) -> int | None:
    """The first step that trains on slots from ``slot`` on."""
    first = slots.skips.first_kept(slot)
    return step_of(slots.schedule, first, slots.skips) if slots.schedule else None
