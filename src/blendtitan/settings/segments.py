"""``[[blendcorpus.segment]]``: new shares after a step or a number of tokens."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blendtitan.batch_schedule import BatchSchedule, consumed_at
from blendtitan.config import MAX_SLOT, check_shares
from blendtitan.errors import ConfigError
from blendtitan.history.phases import Phase
from blendtitan.order.blend import Segment
from blendtitan.order.course import NO_SKIPS, Skips
from blendtitan.settings.suggestions import did_you_mean
from blendtitan.settings.tables import check_begin, check_keys

Lengths = Sequence[tuple[int, int]]
"""``(first slot, seq_len)`` of each stretch of a run with windows of one length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentSettings:
    """One table: exactly one of ``from_step`` and ``from_tokens``."""

    shares: Mapping[str, float]
    """Share by corpus. A corpus not named keeps its share; 0 drops it. Need not sum to 1."""

    from_step: int | None = None
    """Steps before the segment."""

    from_tokens: int | None = None
    """Tokens of all corpora together before the segment, rounded up to a sample."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, number: int) -> "SegmentSettings":
        """The ``number``-th table of a configuration, checked."""
        where = f"segment {number}"
        check_keys(table, cls, where=where)
        check_begin(table, where=where)
        check_shares(table.get("shares"), where=where)
        return cls(**table)

    def check_corpora(self, corpora: Collection[str], where: str) -> None:
        """Check that the file list has the corpora that the segment ``where`` names."""
        begin = "from_tokens" if self.from_step is None else "from_step"
        for name in self.shares.keys() - set(corpora):
            known = sorted(set(corpora))
            raise ConfigError(
                f"{where} ({begin} = {getattr(self, begin):,}) names the corpus {name!r}, expected "
                f"one of {', '.join(known)}.{did_you_mean(name, known)}"
            )

    def first_slot(self, schedule: BatchSchedule, lengths: Lengths, skips: Skips = NO_SKIPS) -> int:
        """First slot of the segment. Tokens of skipped slots do not count."""
        if self.from_step is not None:
            return consumed_at(schedule, self.from_step)
        assert self.from_tokens is not None
        return slot_at_tokens(self.from_tokens, lengths, skips)


def segment_settings(tables: Sequence[Mapping[str, Any]]) -> tuple[SegmentSettings, ...]:
    """The segments of a configuration, in order.

    Raises:
        ConfigError: A key or a value cannot be used.
    """
    return tuple(
        SegmentSettings.from_table(table, number=number)
        for number, table in enumerate(tables, start=1)
    )


def changes_of(
    segments: Sequence[SegmentSettings],
    schedule: BatchSchedule,
    lengths: Lengths,
    skips: Skips = NO_SKIPS,
) -> list[Segment]:
    """First slot and shares of each segment, in a run that skips slots.

    Raises:
        ConfigError: A segment begins beyond the last slot of the order.
    """
    changes = [Segment(s.first_slot(schedule, lengths, skips), s.shares) for s in segments]
    for number, change in enumerate(changes, start=1):
        if change.first_slot >= MAX_SLOT:
            raise ConfigError(
                f"segment {number} begins at sample {change.first_slot:,}, expected one below "
                f"{MAX_SLOT:,}, the end of the order. Delete it, or start it earlier."
            )
    return changes


def lengths_of(phases: Sequence[Phase], *, slot: int, seq_len: int) -> Lengths:
    """The lengths of a run that continues at ``slot`` with windows of ``seq_len``."""
    lengths = [(phase.first_slot, phase.seq_len) for phase in phases]
    lengths = lengths or [(0, seq_len)]  # the original's order has no phases
    return lengths if lengths[-1][1] == seq_len else [*lengths, (slot, seq_len)]


def slot_at_tokens(tokens: int, lengths: Lengths, skips: Skips = NO_SKIPS) -> int:
    """The first slot with at least ``tokens`` tokens before it that were not skipped."""
    if len(skips.firsts):
        kept = [(skips.kept_before(first), seq_len) for first, seq_len in lengths]
        return skips.slot_of(slot_at_tokens(tokens, kept))
    before = 0
    for (first, seq_len), (stop, _) in zip(lengths, [*lengths[1:], (0, 0)], strict=True):
        read = (stop - first) * seq_len
        if (first, seq_len) == lengths[-1] or tokens <= before + read:
            return first - (before - tokens) // seq_len
        before += read
    raise AssertionError("the last length has no end")
