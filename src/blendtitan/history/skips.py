"""Stretches of slots that a run leaves out: in its state, and compared on resume.

Skips are absolute. Once steps were placed as slots, the state keeps these slots: a change of the
global batch size, or another skip, does not move them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from blendtitan.config import MAX_SLOT
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.order.course import Skips


class SkippedStretch(NamedTuple):
    """Consecutive slots that a run leaves out."""

    first_slot: int
    stop_slot: int
    """The first slot after the stretch."""
    from_step: int | None = None
    """The steps that the configuration names. None, both: it names slots."""
    to_step: int | None = None

    def __str__(self) -> str:
        text = f"slots {self.first_slot:,} to {self.stop_slot - 1:,}"
        if self.from_step is not None:
            text += f" (steps {self.from_step:,} to {self.to_step:,})"
        return text


def skips_of(skipped: Iterable[SkippedStretch]) -> Skips:
    """The slots of some stretches, which may overlap."""
    return Skips.of((each.first_slot, each.stop_slot) for each in skipped)


def saved_skips(skipped: Sequence[SkippedStretch]) -> list[dict[str, int]]:
    """Stretches as JSON, for ``skipped_from``."""
    return [
        {name: value for name, value in each._asdict().items() if value is not None}
        for each in skipped
    ]


def skipped_from(saved: Any) -> tuple[SkippedStretch, ...]:
    """The stretches that ``saved_skips`` returned, read back from JSON.

    Raises:
        ConfigError: They are damaged.
    """
    try:
        skipped = tuple(SkippedStretch(**each) for each in saved)
        is_right = all(_is_right(each) for each in skipped)
    except TypeError:
        skipped, is_right = (), False
    if not is_right:
        raise ConfigError(f"damaged skips {saved!r}")
    return skipped


def _is_right(each: SkippedStretch) -> bool:
    numbers = [value for value in each if value is not None]
    is_whole = all(type(value) is int and 0 <= value <= MAX_SLOT for value in numbers)
    return is_whole and len(numbers) in (2, 4) and each.first_slot < each.stop_slot


def check_skips(
    recorded: Sequence[SkippedStretch], now: Sequence[SkippedStretch], consumed_samples: int
) -> None:
    """Check that a run that resumes skips the same slots of its past as before.

    Raises:
        ResumeError: It trained on slots that are to be skipped, or skipped others.
    """
    before, after = (skips_of(each).before(consumed_samples) for each in (recorded, now))
    if before.stretches == after.stretches:
        return
    trained = _missing(after, before)
    if trained:
        raise ResumeError(
            f"the skipped slots {trained[0]:,} to {trained[1] - 1:,} were trained on before this "
            f"checkpoint, which has consumed {consumed_samples:,} samples. To leave them out, load "
            f"a checkpoint from before slot {trained[0]:,} (checkpoint.load_step); to resume from "
            f"this one, remove them from [[blendcorpus.skip]]."
        )
    lost = _missing(before, after)
    assert lost is not None
    raise ResumeError(
        f"slots {lost[0]:,} to {lost[1] - 1:,} were skipped before this checkpoint, but are not "
        f"skipped by the present configuration. Past skips cannot change, because these samples "
        f"were not trained on. The checkpoint has these skips:",
        *(f"  {each}" for each in recorded),
        "Restore them in [[blendcorpus.skip]], or load a checkpoint from before these slots.",
    )


def _missing(one: Skips, other: Skips) -> tuple[int, int] | None:
    """The first stretch of slots that only ``one`` skips."""
    for first, stop in one.stretches:
        start = first
        for begin, end in other.stretches:
            if begin <= start < end:
                start = end
        if start < stop:
            later = [begin for begin, _ in other.stretches if begin > start]
            return start, min([stop, *later])
    return None
