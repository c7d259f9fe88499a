"""``[[blendcorpus.skip]]``: steps or slots that a run leaves out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from blendtitan.batch_schedule import BatchSchedule, consumed_at, with_jumps
from blendtitan.config import MAX_SLOT, check_at_least
from blendtitan.errors import ConfigError
from blendtitan.history.skips import SkippedStretch, skips_of
from blendtitan.settings.tables import check_keys

_PAIRS = (("from_step", "to_step"), ("from_slot", "to_slot"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipSettings:
    """One table: two steps or two slots. Both ends are left out, too."""

    from_step: int | None = None
    """First step to leave out, as it was in the run that trained on it; a run's first step is 1."""

    to_step: int | None = None
    """Last step to leave out."""

    from_slot: int | None = None
    """First slot to leave out; the first of a run is 0."""

    to_slot: int | None = None
    """Last slot to leave out."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, number: int) -> "SkipSettings":
        """The ``number``-th table of a configuration, checked."""
        where = f"skip {number}"
        check_keys(table, cls, where=where)
        if tuple(key.name for key in fields(cls) if key.name in table) not in _PAIRS:
            raise ConfigError(
                f"{where}: found {' and '.join(table) or 'no key'}, expected from_step and "
                f"to_step, or from_slot and to_slot"
            )
        (first, last), least = _PAIRS["from_slot" in table], int("from_step" in table)
        check_at_least(f"{where}: {first}", table[first], least)
        check_at_least(f"{where}: {last}", table[last], least)
        if table[last] < table[first]:
            raise ConfigError(
                f"{where}: {last} is {table[last]:,}, expected at least {first}, {table[first]:,}"
            )
        return cls(**table)

    def stretch(self, schedule: BatchSchedule) -> SkippedStretch:
        """The slots to leave out, in a run of this batch schedule."""
        if self.from_slot is not None and self.to_slot is not None:
            return SkippedStretch(self.from_slot, self.to_slot + 1)
        assert self.from_step is not None
        assert self.to_step is not None
        first, stop = (consumed_at(schedule, step) for step in (self.from_step - 1, self.to_step))
        return SkippedStretch(first, stop, self.from_step, self.to_step)


def skip_settings(tables: Sequence[Mapping[str, Any]]) -> tuple[SkipSettings, ...]:
    """The skips of a configuration, in order.

    Raises:
        ConfigError: A key or a value cannot be used.
    """
    return tuple(
        SkipSettings.from_table(table, number=number)
        for number, table in enumerate(tables, start=1)
    )


def placed_skips(
    skips: Sequence[SkipSettings],
    schedule: BatchSchedule,
    recorded: Sequence[SkippedStretch] = (),
) -> tuple[SkippedStretch, ...]:
    """The slots of each skip.

    Args:
        skips: The skips of a configuration, in the order in which they were added.
        schedule: The batch schedule of the run.
        recorded: Skips in the state that the run resumes from, which keep their slots. The steps of
            another skip are those of a run with the skips before it, so the same steps may be
            skipped twice: the second time, they are those that replaced the first.

    Raises:
        ConfigError: A skip ends beyond the last slot of the order.
    """
    known = [each for each in recorded if each.from_step is not None]
    placed: list[SkippedStretch] = []
    for number, skip in enumerate(skips, start=1):
        steps = skip.from_step, skip.to_step
        found = next((each for each in known if (each.from_step, each.to_step) == steps), None)
        if found is not None:
            known.remove(found)
        placed.append(found or skip.stretch(with_jumps(schedule, skips_of(placed))))
        if placed[-1].stop_slot >= MAX_SLOT:
            raise ConfigError(
                f"skip {number} ends at slot {placed[-1].stop_slot:,}, expected one below "
                f"{MAX_SLOT:,}, the end of the order. Delete it, or end it earlier."
            )
    return tuple(placed)
