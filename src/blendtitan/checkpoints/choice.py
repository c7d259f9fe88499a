"""Which checkpoint of a run to resume from."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from blendtitan.errors import ConfigError, ResumeError


@dataclass(frozen=True, slots=True)
class Choice:
    """The step to resume from, and the damage to newer checkpoints that were passed over."""

    step: int
    damage: dict[int, str]


def choose_step(
    complete: Collection[int],
    damage_at: Callable[[int], str | None],
    *,
    folder: str,
    asked: int | None,
    fallback: bool,
) -> Choice:
    """The step that is asked for, else the latest; with ``fallback``, the newest whole one.

    Args:
        complete: Steps of which there is a complete checkpoint.
        damage_at: What is wrong with the checkpoint of a step; None: nothing.
        folder: Of the checkpoints.
        asked: The step that is asked for; None: the latest.
        fallback: Whether an older checkpoint may take the place of a damaged one.

    Raises:
        ConfigError: There is no complete checkpoint of the step that is asked for.
        ResumeError: The checkpoint is damaged, and no other may or can be used.
    """
    if asked is not None and asked not in complete:
        raise ConfigError(
            f"checkpoint.load_step is {asked}, expected the step of a complete checkpoint in "
            f"{folder}: {_listed(complete) or 'there is none'}."
        )
    damage: dict[int, str] = {}
    for step in sorted(complete, reverse=True):
        if asked is not None and step > asked:
            continue
        found = damage_at(step)
        if found is None:
            if damage and not fallback:
                raise _refused(damage, whole=step, folder=folder)
            return Choice(step, damage)
        damage[step] = found
    raise _refused(damage, whole=None, folder=folder)


def none_complete(folder: str, steps: Collection[int]) -> ResumeError:
    """The error for checkpoints of which none has the file that completes it."""
    return ResumeError(
        f"{folder}: found checkpoints of the steps {_listed(steps)}, none with its .metadata file, "
        f"so training cannot resume from any of them. A copy made without hidden files looks like "
        f"this: copy the .metadata files too. To train from step 1 instead, move or delete "
        f"{folder}, or set another checkpoint.folder."
    )


def _refused(damage: dict[int, str], *, whole: int | None, folder: str) -> ResumeError:
    first = next(iter(damage))
    if whole is None:
        others = " ".join(text for step, text in damage.items() if step != first)
        way_out = (
            f"No older checkpoint is whole{f' ({others})' if others else ''}. Copy step-{first} "
            f"again. To train from step 1 instead, move or delete {folder}."
        )
    else:
        way_out = (
            f"The newest whole checkpoint before it is step-{whole}. Copy step-{first} again, or "
            f"set checkpoint.fallback = true to resume from step-{whole}."
        )
    return ResumeError(f"Cannot resume from step-{first}. {damage[first]} {way_out}")


def _listed(steps: Collection[int]) -> str:
    return ", ".join(map(str, sorted(steps)))
