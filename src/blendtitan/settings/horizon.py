"""The number of samples of a run, on which the original's order depends."""

from collections.abc import Mapping, Sequence
from typing import Any

from blendtitan.batch_schedule import consumed_at
from blendtitan.errors import ConfigError
from blendtitan.settings.batch_changes import batch_changes, planned
from blendtitan.settings.section import BlendSection


def samples_of_run(
    *,
    steps: int,
    global_batch_size: int,
    batch_schedule: Sequence[Mapping[str, Any]] = (),
    seq_len: int,
    validates: bool,
    validation: tuple[int | None, int],
) -> dict[str, int | None]:
    """``train_samples`` and ``eval_samples`` of a run; None if unknown.

    Without ``training.global_batch_size`` they depend on the number of ranks, and with
    ``validation.steps = -1`` on the data.

    Args:
        steps: Steps of the run.
        global_batch_size: Samples of a step; below 1 if it depends on the ranks.
        batch_schedule: The tables of ``training.batch_schedule``.
        seq_len: ``training.seq_len``.
        validates: Whether the run validates at all.
        validation: ``samples``, or None, and ``steps`` of a validation.
    """
    samples, validation_steps = validation
    is_known = global_batch_size > 0
    if not validates:
        samples = 0
    elif samples is None and is_known and validation_steps > 0:
        samples = validation_steps * global_batch_size
    train_samples = None
    if is_known:
        schedule = planned(global_batch_size, batch_changes(batch_schedule), seq_len=seq_len)
        train_samples = consumed_at(schedule, steps)
    return {"train_samples": train_samples, "eval_samples": samples}


_SET_BY = {
    "train_samples": "training.global_batch_size",
    "eval_samples": "validation.samples, or validation.steps and training.global_batch_size",
}


def horizon(section: BlendSection, run: Mapping[str, int | None]) -> dict[str, int]:
    """``train_samples`` and ``eval_samples`` for the original's order.

    Args:
        section: Its values take precedence.
        run: From ``samples_of_run``.

    Raises:
        ConfigError: Neither determines a value.
    """
    found: dict[str, int] = {}
    for name, set_by in _SET_BY.items():
        samples = getattr(section, name)
        samples = run[name] if samples is None else samples
        if samples is None:
            raise ConfigError(
                f'blendcorpus.order = "blendcorpus" depends on the number of samples, which this '
                f"run does not determine. Set {set_by}, or blendcorpus.{name}."
            )
        found[name] = samples
    return found
