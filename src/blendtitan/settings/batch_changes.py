"""``[[training.batch_schedule]]``: other global batch sizes after a step or a number of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blendtitan.batch_schedule import BatchSchedule, BatchStage, begun, changed_at
from blendtitan.config import check_at_least
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.settings.segments import Lengths, lengths_of, slot_at_tokens
from blendtitan.settings.tables import check_begin, check_keys


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchChange:
    """One table: a size, and exactly one of ``from_step`` and ``from_tokens``."""

    global_batch_size: int
    """Samples of each later step."""

    from_step: int | None = None
    """Steps before the change."""

    from_tokens: int | None = None
    """Tokens before the change, rounded up to a step."""

    def begin(self, schedule: BatchSchedule, lengths: Lengths) -> int:
        """Steps before the change, in a run with the schedule until then."""
        if self.from_step is not None:
            return self.from_step
        assert self.from_tokens is not None
        slot = slot_at_tokens(self.from_tokens, lengths)
        stage = [stage for stage in schedule if stage.consumed_samples <= slot][-1]
        return stage.step - (stage.consumed_samples - slot) // stage.global_batch_size


def batch_changes(
    tables: Sequence[Mapping[str, Any]],
    *,
    local_batch_size: int | None = None,
    ranks: int | None = None,
) -> tuple[BatchChange, ...]:
    """The changes of a configuration, in order.

    Args:
        tables: The tables.
        local_batch_size: If it is known, each size must be whole micro batches of every rank.
        ranks: Data-parallel ranks, if they are known.

    Raises:
        ConfigError: A key or a value cannot be used.
    """
    for number, table in enumerate(tables, start=1):
        where = _entry(number)
        check_keys(table, BatchChange, where=where)
        check_begin(table, where=where)
        size: Any = table.get("global_batch_size")
        check_at_least(f"{where}: global_batch_size", size, 1)
        part = (local_batch_size or 1) * (ranks or 1)
        if size % part:
            raise ConfigError(
                f"{where}: global_batch_size is {size:,}, expected a multiple of {part:,}, the "
                f"micro batches of all data-parallel ranks"
            )
    return tuple(BatchChange(**table) for table in tables)


def check_combination(tables: Sequence[Mapping[str, Any]], *, has_skips: bool) -> None:
    """Check that the changes work with skipped slots.

    Raises:
        ConfigError: They do not.
    """
    if has_skips and any("from_tokens" in table for table in tables):
        raise ConfigError(
            "training.batch_schedule: from_tokens cannot be combined with blendcorpus.skip. Use "
            "from_step."
        )


def planned(
    global_batch_size: int, changes: Sequence[BatchChange], *, seq_len: int
) -> BatchSchedule:
    """The batch schedule of a run that is never changed."""
    first = (BatchStage(global_batch_size=global_batch_size),)
    lengths = [(0, seq_len)]
    return continued(first, changes, size=global_batch_size, step=0, lengths=lengths)


def continued(
    schedule: BatchSchedule,
    changes: Sequence[BatchChange],
    *,
    size: int,
    step: int,
    lengths: Lengths,
    may_shrink: bool = False,
) -> BatchSchedule:
    """The batch schedule of a run until ``step``, and from there on the configured one.

    Args:
        schedule: The schedule so far.
        changes: The configured changes. Those before ``step`` must agree with ``schedule``.
        size: The configured size before the first change.
        step: Steps made so far.
        lengths: The lengths of the run's windows.
        may_shrink: Whether steps before ``step`` may have been smaller than configured, because
            replicas were missing. Changes before ``step`` are then not compared.

    Raises:
        ConfigError: The changes are not in order.
        ResumeError: A change before ``step`` differs from the schedule.
    """
    last = -1
    future: list[BatchChange] = []
    for number, change in enumerate(changes, start=1):
        begin = change.begin(schedule, lengths)
        if begin < step and not future:
            if not may_shrink:
                _check_past(schedule, change, begin, number=number, step=step)
            size = change.global_batch_size
            _check_order(begin, last, number)
            last = begin
        else:
            future.append(change)
    schedule = changed_at(schedule, step, global_batch_size=size)
    for number, change in enumerate(future, start=len(changes) - len(future) + 1):
        begin = change.begin(schedule, lengths)
        _check_order(begin, last, number)
        schedule = changed_at(schedule, begin, global_batch_size=change.global_batch_size)
        last = begin
    return schedule


def resumed(
    schedule: BatchSchedule,
    changes: Sequence[BatchChange],
    saved: Any,
    *,
    size: int,
    step: int,
    seq_len: int,
    may_shrink: bool,
) -> BatchSchedule:
    """The same for a run that resumes from a ``SavedState``."""
    lengths = lengths_of(saved.phases, slot=saved.consumed_samples, seq_len=seq_len)
    used = begun(schedule, saved.consumed_samples)
    return continued(used, changes, size=size, step=step, lengths=lengths, may_shrink=may_shrink)


def _check_order(begin: int, last: int, number: int) -> None:
    if begin <= last:
        raise ConfigError(
            f"{_entry(number)} begins after step {begin:,}, expected a step after {last:,}, where "
            f"the table before it begins. Sort the tables, or delete one."
        )


def _check_past(
    schedule: BatchSchedule, change: BatchChange, begin: int, *, number: int, step: int
) -> None:
    if any((s.step, s.global_batch_size) == (begin, change.global_batch_size) for s in schedule):
        return
    stages = ", ".join(f"{s.global_batch_size:,} after step {s.step:,}" for s in schedule)
    raise ResumeError(
        f"{_entry(number)} sets {change.global_batch_size:,} samples after step {begin:,}, but the "
        f"checkpoint, of step {step:,}, was trained with {stages}. Restore this table; tables that "
        f"begin after step {step:,} may change."
    )


def _entry(number: int) -> str:
    return f"training.batch_schedule {number}"
